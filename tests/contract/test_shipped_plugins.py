"""What every plugin that comes with qzoo holds to."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import torchvision

from qzoo.registry import GROUP, Registry

PLUGINS = sorted(
    point.module for point in entry_points(group=GROUP) if point.dist is not None and point.dist.name == "qzoo"
)
FROM_TORCHVISION = {
    entry.spec.name: entry.spec
    for entry in Registry.load(env={}).models()
    if any(source.kind == "torchvision" for source in entry.spec.weights)
}


def test_there_are_plugins_and_models_of_torchvision():
    assert {"qzoo_resnet", "qzoo_mobilenet", "qzoo_mfcnn"} <= {*PLUGINS}
    assert {"resnet50", "mobilenet_v2"} <= FROM_TORCHVISION.keys()


@pytest.mark.parametrize("module", PLUGINS)
def test_listing_the_models_imports_no_torch(module):
    code = f"import sys, {module}; list({module}.qzoo_models()); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(FROM_TORCHVISION))
def test_preprocessing_and_source_are_those_of_torchvisions_weights(name):
    spec = FROM_TORCHVISION[name]
    weights = torchvision.models.get_weight(spec.weights[0].ref)
    transforms, preprocess = weights.transforms(), spec.input.preprocess
    assert [preprocess.crop] == transforms.crop_size
    assert [preprocess.resize] == transforms.resize_size
    assert list(preprocess.mean) == transforms.mean
    assert list(preprocess.std) == transforms.std
    assert preprocess.interpolation == transforms.interpolation.value
    assert weights.url.endswith(f"{name}-{spec.weights[0].sha256}.pth")
