"""BatchNorms that make a channel's weights vanish beside its bias: right in every runtime.

onnxruntime's optimizer stores a bias as int32 in steps of input scale x weight scale. Where a channel's weights are
almost 0, so is that step, and the bias saturates silently.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from qzoo.backends.ort import OnnxRuntime
from qzoo.backends.ov import OpenVINO
from qzoo.export import export
from qzoo.graph import lower
from qzoo.pipeline.assemble import Facts, build_engine, serialize
from qzoo.quant.calibrate import calibrate
from qzoo.quant.insert import insert_quantizers
from qzoo.spec import BatchProfile, Fusion, InputSpec, ModelSpec, Preprocess, QuantSwap, Recipe

PREPROCESS = Preprocess(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1))
CASES = {
    # gamma and beta of a channel
    "gamma 0": (0.0, 1.5),
    "gamma 0, beta 0": (0.0, 0.0),
    "gamma 1e-12": (1e-12, 1.5),
    "negative gamma": (-1.0, 0.2),
    "negative gamma, near 0": (-1e-12, -1.5),
    "near-dead": (1e-9, 1.5),
    "ordinary": (1.0, 0.1),
    "large": (2.0, 0.0),
}
DEAD = [index for index, (gamma, beta) in enumerate(CASES.values()) if abs(gamma) < 1e-6 and beta]


class Network(nn.Module):
    """Two convolutions, each with its BatchNorm, each with a channel per case."""

    def __init__(self) -> None:
        super().__init__()
        channels = len(CASES)
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))


SPEC = ModelSpec(
    name="batchnorms",
    summary="",
    builder="nowhere:none",
    version="1",
    input=InputSpec(shape=(3, 8, 8), preprocess=PREPROCESS),
    num_classes=len(CASES),
    head="",
    fusions=(Fusion("conv1", "bn1", "relu1"), Fusion("conv2", "bn2")),
    swaps=(QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),),
)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def float_network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network().eval()
    gamma, beta = torch.tensor(list(CASES.values())).T
    with torch.no_grad():
        for bn in (network.bn1, network.bn2):
            bn.weight.copy_(gamma)
            bn.bias.copy_(beta)
    return network


@pytest.fixture(scope="module")
def quantized(float_network, images):
    network = insert_quantizers(float_network, SPEC, Recipe(target="onnxruntime", precision="int8"))
    calibrate(network, [torch.from_numpy(images)], "max", "")
    return network


@pytest.fixture(scope="module")
def portable(quantized):
    return export(quantized, "input", SPEC.input.shape, ("logits",))


@pytest.fixture(scope="module")
def expected(quantized, images):
    """What the fake-quantized network gives, (N, channel, H, W)."""
    with torch.no_grad():
        return quantized(torch.from_numpy(images)).numpy()


def session(model, level) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(serialize(model), options)


def worst_by_channel(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The largest error of each channel, in parts of its largest value."""
    error, size = (np.abs(array).max((0, 2, 3)) for array in (found - expected, expected))
    return error / np.maximum(size, 1e-3)


def test_quantization_itself_keeps_every_channel(float_network, expected, images):
    with torch.no_grad():
        exact = float_network(torch.from_numpy(images)).numpy()
    assert (worst_by_channel(expected, exact) < 0.03).all()
    np.testing.assert_allclose(expected[:, DEAD], exact[:, DEAD], rtol=1e-6)


def test_the_portable_graph_is_right_on_every_channel(portable, expected, images):
    found = session(portable, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL).run(None, {"input": images})[0]
    assert (worst_by_channel(found, expected) < 1e-5).all()


@pytest.mark.parametrize("backend", [OnnxRuntime(), OpenVINO()], ids=lambda backend: backend.name)
def test_the_engine_is_right_on_every_channel(backend, portable, expected, images, tmp_path):
    target = backend.target()
    recipe = Recipe(target=backend.name, precision="int8", batch=BatchProfile(max=4))
    lowered = backend.lower(portable, recipe, target)
    facts = Facts(model="batchnorms", preprocess=PREPROCESS, decision="argmax", labels=())
    engine = backend.load(*build_engine(lowered, recipe, backend, target, facts, tmp_path)[:2])
    found = engine.run({"input": images})["logits"]
    assert (worst_by_channel(found, expected) < 0.03).all()
    np.testing.assert_allclose(found[:, DEAD], expected[:, DEAD], rtol=1e-2)


UNGUARDED = [lower.quantize_before_moves, lower.unsigned_non_negative, lower.offset_signed, lower.absorb_clamps]


def test_onnxruntime_is_wrong_on_this_network_without_floored_scales(portable, expected, images):
    graph = lower.run_passes(portable, UNGUARDED)
    level = onnxruntime.GraphOptimizationLevel
    assert (
        worst_by_channel(session(graph, level.ORT_DISABLE_ALL).run(None, {"input": images})[0], expected) < 0.03
    ).all()
    optimized = session(graph, level.ORT_ENABLE_ALL).run(None, {"input": images})[0]
    assert worst_by_channel(optimized, expected).max() > 0.2


def test_floored_scales_alone_make_onnxruntime_right(portable, expected, images):
    graph = lower.run_passes(portable, [*UNGUARDED, lower.floor_weight_scales])
    found = session(graph, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL).run(None, {"input": images})[0]
    assert (worst_by_channel(found, expected) < 0.03).all()
