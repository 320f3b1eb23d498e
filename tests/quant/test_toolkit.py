"""TensorQuantizer: one formula for evaluation, training and export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qzoo.errors import CalibrationError
from qzoo.quant.histogram import Collector
from qzoo.quant.modules import QuantLinear, weights_rounded_once
from qzoo.quant.toolkit import TensorQuantizer

VALUES = st.floats(-1000, 1000, width=32)
TENSORS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=VALUES)
AMAX = st.floats(2**-10, 1000, width=32)


def quantizer(role: str = "input", axis: int | None = None, amax: object = 1.0) -> TensorQuantizer:
    made = TensorQuantizer(role, axis).eval()
    made.load_amax(torch.as_tensor(amax))
    return made


def formula(x: np.ndarray, amax: np.ndarray, low: int) -> np.ndarray:
    """q = clamp(round_half_even(x / s), low, 127), y = q s, s = amax / 127, in float32."""
    step = (amax.astype(np.float32) / np.float32(127)).astype(np.float32)
    return (np.clip(np.rint(x / step), low, 127) * step).astype(np.float32)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TENSORS, AMAX, st.sampled_from([("input", -128), ("skip", -128), ("branch", -128), ("weight", -127)]))
def test_evaluation_is_the_formula_per_tensor(x, amax, role):
    got = quantizer(role[0], None, amax)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(got, formula(x, np.float32(amax), role[1]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TENSORS, st.data())
def test_evaluation_is_the_formula_per_channel(x, data):
    axis = data.draw(st.integers(0, 1))
    amax = np.array(data.draw(st.lists(AMAX, min_size=x.shape[axis], max_size=x.shape[axis])), np.float32)
    shaped = amax.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    got = quantizer("weight", axis, amax)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(got, formula(x, shaped, -127))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TENSORS, AMAX)
def test_evaluation_is_pytorchs_own_within_a_rounding_step(x, amax):
    # PyTorch multiplies by the inverse of the scale, so a value on a rounding step may fall to the other side
    step = np.float32(amax) / np.float32(127)
    theirs = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), float(step), 0, -128, 127).numpy()
    ours = quantizer("input", None, amax)(torch.from_numpy(x)).numpy()
    off = ~np.isclose(ours, theirs, rtol=1e-5, atol=0)
    fraction = np.abs(x / step - np.floor(x / step) - 0.5)
    assert (fraction[off] < 1e-4).all()


def test_activations_reach_minus_128_and_weights_minus_127():
    x = torch.tensor([-2.0, 2.0])
    for role, low in (("input", -128), ("weight", -127)):
        assert quantizer(role)(x).mul(127).round().tolist() == [low, 127]


@pytest.mark.parametrize(("role", "axis"), [("input", None), ("weight", 0)])
def test_training_computes_what_evaluation_computes(role, axis):
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    made = quantizer(role, axis, 1.5 if axis is None else [0.5, 1.0, 1.5, 2.0])
    evaluated, trained = made(x), made.train()(x)
    torch.testing.assert_close(trained, evaluated, rtol=0, atol=1e-6)


def test_training_passes_gradients_straight_through_inside_the_range_only():
    x = torch.tensor([-1.5, -0.5, 0.0, 0.5, 1.5], requires_grad=True)
    quantizer().train()(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_an_uncalibrated_quantizer_passes_its_input_through():
    x = torch.randn(3, 3)
    made = TensorQuantizer("input")
    assert not made.calibrated
    assert torch.equal(made(x), x)


def test_while_collecting_the_input_passes_and_is_seen():
    made, collector, x = quantizer(), Collector(), torch.tensor([3.0, -7.0])
    made.start_collecting(collector)
    assert torch.equal(made(x), x)
    made.stop_collecting()
    assert collector.max == 7
    assert made.collector is None
    assert made(x).tolist() == pytest.approx([1.0, -128 / 127])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_an_amax_that_is_not_finite_or_negative_is_refused_with_its_value(bad):
    with pytest.raises(CalibrationError, match=str(bad)) as raised:
        quantizer("weight", 0, [1.0, bad])
    assert raised.value.exit_code == 3


def test_the_scale_of_a_channel_of_zeros_is_finite_positive_and_normal():
    step = quantizer("weight", 0, [0.0, 1.0]).step
    assert (step > 0).all()
    assert torch.isfinite(step).all()
    assert float(step[0]) >= float(np.finfo(np.float32).tiny)


def test_a_state_dict_comes_back_without_cuda():
    state = quantizer("weight", 0, [1.0, 2.0]).state_dict()
    fresh = TensorQuantizer("weight", 0)
    fresh.load_amax(torch.zeros(2))
    fresh.load_state_dict(state)
    assert fresh.step.tolist() == pytest.approx([1 / 127, 2 / 127])


def test_a_state_dict_loads_into_a_quantizer_that_was_never_calibrated():
    state = quantizer("weight", 0, [1.0, 2.0]).state_dict()
    fresh = TensorQuantizer("weight", 0)
    fresh.load_state_dict(state)
    assert fresh.step.tolist() == pytest.approx([1 / 127, 2 / 127])


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 127), (4, -7, 7), (2, -1, 1)])
def test_weights_of_fewer_bits_have_fewer_steps(bits, low, high):
    made = quantizer("weight")
    made.num_bits = bits
    values = made(torch.linspace(-3, 3, 1001)).div(made.step).round().unique().tolist()
    assert values == list(range(low, high + 1))


@pytest.mark.parametrize("axis", [None, 0])
def test_a_learned_range_computes_what_a_frozen_one_does(axis):
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    made = quantizer("weight", axis, 1.5 if axis is None else [0.5, 1.0, 1.5, 2.0])
    frozen = made(x)
    made.learn_amax()
    torch.testing.assert_close(made(x), frozen, rtol=0, atol=1e-6)
    torch.testing.assert_close(made.train()(x), frozen, rtol=0, atol=1e-6)
    made.freeze_amax()
    assert "_amax" in dict(made.named_buffers())
    assert not list(made.parameters())
    torch.testing.assert_close(made.eval()(x), frozen, rtol=0, atol=1e-6)


@pytest.mark.parametrize("axis", [None, 0])
def test_the_gradient_of_a_learned_range_is_that_of_learned_step_sizes(axis):
    """Esser et al. 2020, equation 3: round(x/s) - x/s inside the range, the bound outside; times 1 / sqrt(n hi)."""
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    amax = torch.tensor([0.7, 1.2, 2.0]) if axis == 0 else torch.tensor(1.1)
    made = quantizer("input", axis, amax).train()
    made.learn_amax()
    made(x).sum().backward()
    step = (amax / 127).reshape(-1, 1) if axis == 0 else amax / 127
    ratio = x / step
    inside = (ratio.round() >= -128) & (ratio.round() <= 127)
    own = torch.where(inside, ratio.round() - ratio, ratio.clamp(-128, 127))
    count = x.numel() / amax.numel()
    of_step = (own.sum(1) if axis == 0 else own.sum()) * (count * 127) ** -0.5
    of_log2 = of_step * amax / 127 * float(np.log(2))
    torch.testing.assert_close(made.log2_amax.grad, of_log2, rtol=1e-3, atol=1e-6)


def test_a_learned_range_stays_above_zero_however_large_the_step():
    made = quantizer("input", None, 1.0).train()
    made.learn_amax()
    optimizer = torch.optim.SGD(made.parameters(), lr=1e3)
    made(torch.full((10,), 0.01)).sum().neg().backward()
    optimizer.step()
    made.freeze_amax()
    assert 0 < float(made.step) < float("inf")


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TENSORS, AMAX)
def test_training_on_a_cpu_is_pytorchs_fake_quantization_in_values_and_gradients(x, amax):
    ours, theirs = (torch.from_numpy(x).clone().requires_grad_() for _ in range(2))
    made = quantizer("input", None, amax).train()
    got = made(ours)
    want = torch.fake_quantize_per_tensor_affine(theirs, float(made.step), 0, -128, 127)
    assert torch.equal(got, want)
    got.sum().backward()
    want.sum().backward()
    beyond = (torch.from_numpy(x) / made.step).abs()
    inside = ((beyond - 127.5).abs() > 1e-3) & ((beyond - 128.5).abs() > 1e-3)  # there it rounds into the range or not
    assert torch.equal(ours.grad[inside], theirs.grad[inside])


def test_within_the_context_a_weight_is_rounded_once_and_anew_where_it_changed():
    made = QuantLinear.from_float(torch.nn.Linear(3, 2), 0).eval()
    made.weight_quantizer.load_amax(torch.ones(2))
    with torch.no_grad():
        expected = made.weight_quantizer(made.weight)
        with weights_rounded_once(made):
            first, second = (made.weight_quantizer(made.weight) for _ in range(2))
            assert first is second
            made.weight.mul_(0.5)
            changed = made.weight_quantizer(made.weight)
            other = made.weight_quantizer(torch.nn.Parameter(torch.ones(2, 3)))
            made.weight_quantizer.load_amax(2 * torch.ones(2))
            wider = made.weight_quantizer(made.weight)
            made.weight_quantizer.load_amax(torch.ones(2))
        after = made.weight_quantizer(made.weight)
    torch.testing.assert_close(first, expected, rtol=0, atol=0)
    np.testing.assert_array_equal(changed.numpy(), formula(made.weight.detach().numpy(), np.float32(1), -127))
    assert torch.equal(other, torch.ones(2, 3))
    np.testing.assert_array_equal(wider.numpy(), formula(made.weight.detach().numpy(), np.float32(2), -127))
    assert after is not changed
    assert torch.equal(after, changed)


def test_within_the_context_what_is_computed_of_a_weight_is_rounded_each_time():
    made = QuantLinear.from_float(torch.nn.Linear(3, 2), 0).eval()
    made.weight_quantizer.load_amax(torch.ones(2))
    with torch.inference_mode(), weights_rounded_once(made):
        halves, thirds = made.weight_quantizer(made.weight / 2), made.weight_quantizer(made.weight / 3)
    assert not torch.equal(halves, thirds)
