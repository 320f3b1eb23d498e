"""Grids of their own for what HardSwish, SiLU and GELU give, held to PyTorch's activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from qzoo.graph import lower
from qzoo.graph.bounded import LOWEST, shift_bounded
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.edit import pairs

Q = 'qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "{}.input_quantizer">'
ACTIVATIONS = {"HardSwish": F.hardswish, "Swish": F.silu, "Gelu": F.gelu}
BODY = {"HardSwish": "a = HardSwish (x)", "Swish": "g = Sigmoid (x)\n  a = Mul (x, g)"}
DENSE = np.linspace(-8, 8, 4001, dtype=np.float32).reshape(1, -1)


def quantized(activation: str) -> str:
    return f"""
g (float[N,K] x) => (float[N,K] y) {{
  {BODY[activation]}
  q = {Q.format("next")} (a, s)
  y = Identity (q)
}}
"""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_least_values_are_those_of_pytorchs_activations(name):
    fine = torch.linspace(-3, 0, 300_001, dtype=torch.float64)
    assert float(ACTIVATIONS[name](fine).min()) == pytest.approx(LOWEST[name], abs=1e-8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(activation=st.sampled_from(sorted(BODY)), amax=st.floats(0.5, 8))
def test_every_value_is_rounded_by_at_most_half_the_smaller_step(parse, evaluate, activation, amax):
    portable = canonicalize(parse(quantized(activation), s=np.float32(amax / 127)))
    lowered = lower.run_passes(portable, [shift_bounded])
    (pair,) = pairs(lowered.graph)
    step = (amax - LOWEST[activation]) / 255
    assert float(pair.scale) == pytest.approx(step, rel=1e-6)
    exact = ACTIVATIONS[activation](torch.from_numpy(DENSE)).numpy()
    (found,) = evaluate(lowered, x=DENSE)
    inside = exact <= amax - step
    assert np.abs(found - exact)[inside].max() <= 0.5 * step * (1 + 1e-4)
    assert (found[~inside] >= amax - 2 * step).all()


@pytest.mark.parametrize("amax", [0.2, 0.375])
def test_a_range_that_cuts_the_negative_values_off_stays_symmetric(parse, amax):
    portable = canonicalize(parse(quantized("HardSwish"), s=np.float32(amax / 127)))
    (pair,) = pairs(lower.run_passes(portable, [shift_bounded]).graph)
    assert pair.zero_point.dtype == np.int8


def test_a_tensor_whose_least_value_is_not_known_stays_symmetric(parse):
    text = quantized("Swish").replace("Mul (x, g)", "Mul (g, g)")
    (pair,) = pairs(lower.run_passes(canonicalize(parse(text, s=np.float32(0.05))), [shift_bounded]).graph)
    assert pair.zero_point.dtype == np.int8


@pytest.mark.parametrize(("other", "shifted"), [("HardSwish (x)", True), ("Neg (x)", False)])
def test_branches_of_one_quantizer_change_together_or_not_at_all(parse, other, shifted):
    text = f"""
    g (float[N,4] x) => (float[N,8] y) {{
      a = HardSwish (x)
      b = {other}
      a_q = {Q.format("concat")} (a, s)
      b_q = {Q.format("concat")} (b, s)
      y = Concat <axis = 1> (a_q, b_q)
    }}"""
    lowered = lower.run_passes(canonicalize(parse(text, s=np.float32(0.05))), [shift_bounded])
    assert {pair.zero_point.dtype == np.uint8 for pair in pairs(lowered.graph)} == {shifted}
    assert len({pair.grid() for pair in pairs(lowered.graph)}) == 1
