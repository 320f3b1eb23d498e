"""Fine-tuning of timm's networks, as `qzoo train --qat` and `--qat-epochs` do it: their placement is derived."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from qzoo.graph.edit import MODULE, constant, weight_dequantizers
from qzoo.pipeline import Options, build_all, make_plan
from qzoo.pipeline.prepare import prepare
from qzoo.pipeline.progress import Silent
from qzoo.pipeline.training import TrainOptions, train
from qzoo.store import Store


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> str:
    """120 noisy images of two classes: the left half is the brighter one, or the right half."""
    generator, labels = np.random.default_rng(0), np.arange(120) % 2
    images = generator.integers(0, 128, (120, 12, 12), np.uint8)
    images[labels == 0, :, :6] += 96
    images[labels == 1, :, 6:] += 96
    path = tmp_path_factory.mktemp("halves") / "halves.npz"
    np.savez(path, images=images, labels=labels)
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Weights of a network of timm's for two classes, seeded, with statistics of BatchNorms."""

    def save(name: str) -> str:
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=2).train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)  # timm begins with 0 in the last of a branch, which then learns nothing
        with torch.no_grad():
            network(torch.randn(8, 3, 160, 160))
        path = tmp_path_factory.mktemp(name) / "weights.safetensors"
        save_file(network.state_dict(), path)
        return str(path)

    return save


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_derived_network_learns_with_fake_quantization(registry, tmp_path, halves, checkpoint, name):
    begun = checkpoint(name)
    options = TrainOptions(
        model=f"timm/{name}",
        qat=True,
        weights=begun,
        data=halves,
        calib_samples=8,
        epochs=2,
        lr=1e-3,
        batch_size=16,
        out=tmp_path / "run",
    )
    run = train(options, registry, Store(tmp_path / "home"), Silent())
    first, second = run.history
    assert second.loss < first.loss
    before, after = load_file(begun), load_file(run.weights)
    assert before.keys() < after.keys()  # the network's own, and the ranges
    still = [key for key, value in before.items() if value.is_floating_point() and torch.equal(value, after[key])]
    assert still == []


def integers(portable: ir.Model) -> dict[str, np.ndarray]:
    return {node.metadata_props[MODULE]: constant(node.inputs[0]) for node in weight_dequantizers(portable.graph)}


def test_a_build_fine_tunes_a_derived_network_and_its_integer_weights_move(registry, tmp_path, halves, checkpoint):
    store, weights = Store(tmp_path), checkpoint("test_resnet")

    def plan(epochs: int):
        options = Options(
            model="timm/test_resnet",
            target="onnxruntime",
            weights=weights,
            data=halves,
            calib_samples=8,
            qat_epochs=epochs,
            max_drop=100.0,
        )
        return make_plan(options, registry, store.home / "cache")

    (bundle,) = build_all([plan(1)], store)
    assert bundle.measurement.verified == "passed"
    assert "fine-tuning, epoch 1/1" in bundle.measurement.seconds
    tuned, calibrated = integers(ir.load(bundle.path / "portable.onnx")), integers(prepare(plan(0), Silent()).portable)
    assert tuned.keys() == calibrated.keys()
    moved = [name for name, stored in tuned.items() if not np.array_equal(stored, calibrated[name])]
    assert len(moved) > len(tuned) / 2
