from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from qzoo.data.preprocess import apply
from qzoo.errors import SpecError, UnknownName
from qzoo.quant.derive import derive
from qzoo.registry import Registry
from qzoo.spec import ModelSpec
from qzoo.testing import check_model, subjects_named
from qzoo_timm import qzoo_models
from qzoo_timm.make_names import found
from qzoo_timm.model import build
from qzoo_timm.spec import names, resolve

DESCRIBED = timm.get_pretrained_cfg


def test_the_names_are_those_of_the_timm_that_is_installed():
    assert list(names()) == found()


def test_listing_the_family_imports_neither_torch_nor_timm():
    code = (
        "import sys, qzoo_timm; assert len(list(next(iter(qzoo_timm.qzoo_models())).names())) > 1000;"
        "sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_family_is_listed_and_a_misspelt_name_is_suggested(registry: Registry):
    assert "timm" in [entry.family.prefix for entry in registry.families()]
    assert registry.model("timm/resnet18").spec.name == "timm/resnet18"
    with pytest.raises(UnknownName, match="did you mean timm/resnet18"):
        registry.model("timm/resnt18")


def test_a_name_without_a_tag_has_timms_default_weights():
    spec = resolve("resnet18")
    assert [(one.kind, one.ref) for one in spec.weights] == [("timm", f"resnet18.{DESCRIBED('resnet18').tag}")]
    assert resolve("resnet18.fb_swsl_ig1b_ft_in1k").weights[0].ref == "resnet18.fb_swsl_ig1b_ft_in1k"


@pytest.mark.parametrize("name", ["resnet18", "test_vit.r160_in1k", "levit_128s", "resnetv2_18", "efficientformer_l1"])
def test_the_head_is_the_module_whose_weight_has_the_class_count(name: str):
    spec = resolve(name)
    with torch.device("meta"):
        network = build(7, **spec.builder_args)
    assert network.get_submodule(spec.head).weight.shape[0] == 7


def refusal(name: str) -> str | None:
    """Why a network has no spec; None if it has one."""
    try:
        spec = resolve(name)
    except SpecError as error:
        return str(error)
    assert isinstance(spec, ModelSpec)
    assert spec.placement == "derived"
    return None


def test_every_network_is_described_or_refused_with_the_reason():
    refused = {name: why for name in names() if (why := refusal(name)) is not None}
    assert len(refused) < 450
    for name, why in refused.items():
        assert why.startswith((f"timm/{name} has no classifier", f"timm/{name} wants a border (crop_pct 1.15)")), why


@pytest.mark.parametrize("size", [(300, 200), (201, 333)])
@pytest.mark.parametrize(("name", "mode"), [("resnet18", "center"), ("dm_nfnet_f0.dm_in1k", "squash")])
def test_preprocessing_gives_the_array_that_timms_own_transform_gives(name: str, mode: str, size: tuple[int, int]):
    described = DESCRIBED(name)
    assert described.crop_mode == mode
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    expected = create_transform(**resolve_data_config(pretrained_cfg=described.to_dict()), is_training=False)(image)
    np.testing.assert_allclose(apply(resolve(name).input.preprocess, image), expected.numpy(), atol=1e-5)


def test_a_network_without_a_classifier_is_refused():
    with pytest.raises(SpecError, match="timm/vit_small_patch14_dinov2 has no classifier"):
        resolve("vit_small_patch14_dinov2")


SMALL = ("test_byobnet", "test_convnext", "test_efficientnet", "test_efficientnet_gn", "test_nfnet", "test_resnet")
ATTENTIVE = ("test_vit", "test_vit2", "test_vit3", "test_vit_relpos", "test_maxvit", "test_coatnet")


@pytest.mark.parametrize("name", [*SMALL, *ATTENTIVE])
def test_a_placement_is_derived_for_timms_own_test_networks(name: str):
    spec = resolve(name)
    torch.manual_seed(0)
    network = build(10, **spec.builder_args).eval()
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    derived = derive(network, spec.input.shape, spec.name)
    weighted = [swap for swap in derived.swaps if swap.to.endswith(("Conv2d", "Linear"))]
    assert len(weighted) == len(layers)
    assert not [left for left in derived.network.left_in_float if left.kind in ("convolution", "linear", "module")]


def test_the_kit_finds_no_fault(registry: Registry, tmp_path: Path):
    (subject,) = subjects_named("timm/test_vit", registry, tmp_path)
    report = check_model(subject)
    assert [(one.check, one.evidence) for one in report.findings if one.status in ("failed", "blocked")] == []
    assert report.passed == report.counted == 13


def test_the_hook_gives_one_family():
    assert [family.prefix for family in qzoo_models()] == ["timm"]
