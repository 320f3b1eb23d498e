"""Quantized modules against the explicit formula, and against their float twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qzoo.quant.modules import (
    Add,
    QuantAdaptiveAvgPool2d,
    QuantAdd,
    QuantConv2d,
    QuantLinear,
    quantizers,
    weight_of,
)

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def fake(x: Tensor, amax: Tensor, low: int) -> Tensor:
    step = amax / 127
    return (x / step).round().clamp(low, 127) * step


def calibrated(module: nn.Module) -> nn.Module:
    for path, quantizer in quantizers(module).items():
        if quantizer.role == "weight":
            weight = weight_of(module, path).detach().abs()
            quantizer.load_amax(weight.amax() if quantizer.axis is None else weight.flatten(1).amax(1))
        else:
            quantizer.load_amax(torch.tensor(1.7))
    return module.eval()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("axis", [0, None])
@pytest.mark.parametrize(
    "conv",
    [
        lambda: nn.Conv2d(4, 6, 3, padding=1),
        lambda: nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False),
        lambda: nn.Conv2d(4, 4, 3, dilation=2, padding=2, groups=4),
        lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    ],
    ids=["plain", "strided, grouped", "depthwise, dilated", "circular"],
)
def test_a_convolution_quantizes_its_input_and_its_weight(conv, axis):
    plain = conv()
    quantized = calibrated(QuantConv2d.from_float(plain, axis))
    amax = plain.weight.abs().amax() if axis is None else plain.weight.abs().amax((1, 2, 3), keepdim=True)
    twin = conv()
    twin.load_state_dict({**plain.state_dict(), "weight": fake(plain.weight, amax, -127)})
    torch.testing.assert_close(quantized(X), twin(fake(X, torch.tensor(1.7), -128)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("axis", [0, None])
def test_a_linear_layer_quantizes_its_input_and_its_weight(axis):
    plain = nn.Linear(6, 5)
    quantized = calibrated(QuantLinear.from_float(plain, axis))
    amax = plain.weight.abs().amax() if axis is None else plain.weight.abs().amax(1, keepdim=True)
    want = F.linear(fake(X, torch.tensor(1.7), -128), fake(plain.weight, amax, -127), plain.bias)
    torch.testing.assert_close(quantized(X), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, (3, 1)])
def test_a_pooling_quantizes_its_input(size):
    quantized = calibrated(QuantAdaptiveAvgPool2d.from_float(nn.AdaptiveAvgPool2d(size), 0))
    want = F.adaptive_avg_pool2d(fake(X, torch.tensor(1.7), -128), size)
    torch.testing.assert_close(quantized(X), want, rtol=0, atol=1e-6)


def test_an_add_quantizes_both_inputs_each_by_its_own_amax():
    quantized = QuantAdd.from_float(Add(), 0).eval()
    quantized.skip_quantizer.load_amax(torch.tensor(1.0))
    quantized.branch_quantizer.load_amax(torch.tensor(3.0))
    want = fake(X, torch.tensor(1.0), -128) + fake(2 * X, torch.tensor(3.0), -128)
    assert torch.equal(quantized(X, 2 * X), want)
    assert [quantizer.role for quantizer in quantizers(quantized).values()] == ["skip", "branch"]


TWINS = [
    (QuantConv2d, nn.Conv2d(3, 4, 3)),
    (QuantLinear, nn.Linear(3, 4)),
    (QuantAdaptiveAvgPool2d, nn.AdaptiveAvgPool2d(1)),
    (QuantAdd, Add()),
]


@pytest.mark.parametrize(("kind", "plain"), TWINS)
def test_the_state_dict_is_the_float_twins_until_calibration(kind, plain):
    assert list(kind.from_float(plain, 0).state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize(("kind", "plain"), TWINS)
@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_the_float_twins_all_the_way_down(kind, plain, training):
    made = kind.from_float(plain.train(training), 0)
    assert {module.training for module in made.modules()} == {training}


@pytest.mark.parametrize(("kind", "plain"), TWINS)
def test_the_float_twin_is_left_as_it_was(kind, plain):
    before = set(dict(plain.named_modules()))
    kind.from_float(plain, 0)
    assert set(dict(plain.named_modules())) == before
    assert type(plain) in (nn.Conv2d, nn.Linear, nn.AdaptiveAvgPool2d, Add)


def test_parameters_are_shared_with_the_float_twin():
    plain = nn.Conv2d(3, 4, 3)
    assert QuantConv2d.from_float(plain, 0).weight is plain.weight


def test_an_uncalibrated_module_computes_what_its_float_twin_computes():
    plain = nn.Conv2d(4, 6, 3)
    assert torch.equal(QuantConv2d.from_float(plain, 0)(X), plain(X))


def test_pytorchs_own_classes_are_not_patched():
    assert nn.Conv2d.__module__ == "torch.nn.modules.conv"
    assert not hasattr(nn.Conv2d(1, 1, 1), "input_quantizer")
