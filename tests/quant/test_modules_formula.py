"""Quantized modules against q = clamp(round(x / s), lo, 127), y = q s, s = amax / 127: forward, and backward.

The reference is the float twin's own operator of PyTorch on tensors that were rounded here, by hand.
"""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from module_cases import CASES, FACTORS, TWINS, made, random_values, variants, weight_amax
from torch import Tensor, nn

from qzoo.quant import modules

CUT = 0.6
"""amax is this fraction of the largest magnitude, so that some values are clamped."""


def rounded(x: Tensor, amax: Tensor, low: int) -> tuple[Tensor, Tensor]:
    """What the formula makes of x, and where it clamps nothing. low is -128 for activations, -127 for weights."""
    step = amax / 127
    integers = (x.detach() / step).round()
    return integers.clamp(low, 127) * step, (integers >= low) & (integers <= 127)


class Reference:
    """A case computed by hand, and the quantized module with the same amax."""

    def __init__(self, name: str, axis: int | None) -> None:
        self.case, twin = CASES[name], made(name)
        self.module = self.case.quantized(twin, axis)
        self.inputs = [x.requires_grad_() for x in self.case.inputs(random_values(1))]
        largest: dict[str, Tensor] = {}
        for quantizer, x in zip(self.case.quantizers, self.inputs, strict=True):
            largest[quantizer] = torch.maximum(largest.get(quantizer, torch.zeros(())), x.detach().abs().max())
        pairs = [
            rounded(x, CUT * largest[quantizer], -128)
            for quantizer, x in zip(self.case.quantizers, self.inputs, strict=True)
        ]
        self.rounded, self.inside = [pair[0].requires_grad_() for pair in pairs], [pair[1] for pair in pairs]
        for quantizer, amax in largest.items():
            self.module.get_submodule(quantizer).load_amax(CUT * amax)
        self.twin = deepcopy(twin)
        if self.case.channel_axis is not None:
            amax = CUT * weight_amax(twin.weight, None if axis is None else self.case.channel_axis)
            weight, self.weight_inside = rounded(twin.weight, amax, -127)
            self.twin.weight = nn.Parameter(weight)
            self.module.weight_quantizer.load_amax(amax)

    def outputs(self) -> tuple[Tensor, Tensor]:
        """The module's, and what it is to be."""
        return (
            self.module(*self.inputs, **self.case.arguments),
            self.twin(*self.rounded, **self.case.arguments),
        )


@pytest.mark.parametrize(("name", "axis"), variants())
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_the_output_is_the_formulas(name, axis, training):
    reference = Reference(name, axis)
    reference.module.train(training)
    got, want = reference.outputs()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6 * float(want.detach().abs().max()))


@pytest.mark.parametrize(("name", "axis"), variants())
def test_gradients_go_straight_through_inside_the_range_and_are_zero_outside(name, axis):
    reference = Reference(name, axis)
    reference.module.train()
    got, want = reference.outputs()
    upstream = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    for output in (got, want):
        (output * upstream).sum().backward()
    checked = list(zip(reference.inputs, reference.rounded, reference.inside, strict=True))
    if reference.case.channel_axis is not None:
        checked.append((reference.module.weight, reference.twin.weight, reference.weight_inside))
    for masks in (reference.inside, *([[reference.weight_inside]] if reference.case.channel_axis is not None else [])):
        assert 0 < torch.cat([mask.flatten() for mask in masks]).float().mean() < 1
    for real, integers, inside in checked:
        torch.testing.assert_close(real.grad, integers.grad * inside, rtol=0, atol=1e-5)
    if getattr(reference.twin, "bias", None) is not None:
        torch.testing.assert_close(reference.module.bias.grad, reference.twin.bias.grad, rtol=0, atol=1e-4)


def test_activations_reach_minus_128_steps_and_weights_minus_127():
    linear = nn.Linear(1, 2, bias=False)
    linear.weight.data = torch.tensor([[-3.0], [1.0]])
    module = modules.QuantLinear.from_float(linear, None).eval()
    module.input_quantizer.load_amax(torch.tensor(127.0))
    module.weight_quantizer.load_amax(torch.tensor(1.0))
    assert module(torch.tensor([[-500.0]])).tolist() == [[-128 * -1.0, -128 * 1.0]]


def test_the_channels_of_a_transposed_convolution_have_their_own_scale():
    plain = nn.ConvTranspose2d(2, 3, 1, bias=False)
    plain.weight.data = torch.tensor([[100.0, 1.0, 0.01], [50.0, -0.4, 0.001]]).reshape(2, 3, 1, 1)
    module = modules.QuantConvTranspose2d.from_float(plain, 0).eval()
    module.weight_quantizer.load_amax(torch.tensor([100.0, 1.0, 0.01]))
    got = module.weight_quantizer(module.weight).reshape(2, 3)
    want = torch.tensor([[127, 127, 127], [64, -51, 13]]) * torch.tensor([100.0, 1.0, 0.01]) / 127
    torch.testing.assert_close(got, want)


def test_every_branch_of_a_concat_is_quantized_by_one_amax():
    module = modules.QuantConcat.from_float(modules.Concat(1), 0).eval()
    assert list(modules.quantizers(module)) == ["input_quantizer"]
    module.input_quantizer.load_amax(torch.tensor(127.0))
    assert module(torch.tensor([[0.4, 200.0]]), torch.tensor([[-1.6]])).tolist() == [[0.0, 127.0, -2.0]]


def test_every_quantized_module_is_in_the_table_and_each_input_has_a_range_of_its_own():
    mixins = {"QuantInput", "QuantWeighted"}
    others = {"QuantMultiheadAttention"}  # tests/quant/test_quant_attention.py
    assert {name for name in modules.__all__ if name.startswith("Quant")} - mixins - others == {
        f"Quant{twin}" for twin in TWINS
    }
    assert len({abs(factor) for factor in FACTORS}) == max(len(case.shapes) for case in CASES.values())
