"""The lowering passes on what quantized modules export: transposed convolutions, and branches of one quantizer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.graph import lower
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.edit import pairs, weight_dequantizers

FAKE = 'qzoo.FakeQuantize <axis: int = {}, low: int = {}, role: string = "{}", path: string = "{}">'
TRANSPOSED = f"""
g (float[N,4,3,3] x) => (float[N,6,7,7] y) {{
  x_fq = {FAKE.format(-1, -128, "input", "up.input_quantizer")} (x, x_scale)
  w_fq = {FAKE.format(1, -127, "weight", "up.weight_quantizer")} (w, w_scale)
  y = ConvTranspose <strides = [2,2], group = 2> (x_fq, w_fq, b)
}}
"""


def transposed(parse, scales: np.ndarray, biases: np.ndarray) -> ir.Model:
    """4 -> 6 channels in 2 groups: 3 scales, and 6 biases, of which i and i + 3 go with scale i."""
    weight = np.random.default_rng(0).uniform(-127, 127, (4, 3, 3, 3)) * scales.reshape(1, 3, 1, 1)
    arrays = {"w": weight, "w_scale": scales, "b": biases, "x_scale": np.float32(0.02)}
    return canonicalize(parse(TRANSPOSED, **{name: np.asarray(a, np.float32) for name, a in arrays.items()}))


def weight_of(model: ir.Model) -> tuple[np.ndarray, np.ndarray]:
    (node,) = weight_dequantizers(model.graph)
    stored, scale = (value.const_value.numpy().astype(np.float64) for value in node.inputs[:2])
    assert node.attributes.get_int("axis") == 1
    return stored, scale


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.floats(-12, 1), min_size=6, max_size=6))
def test_flooring_a_transposed_convolution_looks_at_the_bias_of_each_group(parse, exponents):
    biases, scales = 10.0 ** np.array(exponents), np.array([1e-8, 1e-3, 1e-10])
    portable = transposed(parse, scales, biases)
    (old, before), (new, after) = (
        weight_of(model) for model in (portable, lower.run_passes(portable, [lower.floor_weight_scales]))
    )
    floor = np.maximum(biases[:3], biases[3:]) / (0.02 * 2**30)
    np.testing.assert_allclose(after, np.maximum(before, floor), rtol=1e-6)
    error = np.abs(new * after.reshape(1, 3, 1, 1) - old * before.reshape(1, 3, 1, 1))
    assert (error <= (0.5 + 1e-6) * after.reshape(1, 3, 1, 1)).all()


def test_narrowing_a_transposed_convolution_stays_within_half_a_step(parse):
    portable = transposed(parse, np.array([0.1, 0.2, 0.3]), np.zeros(6))
    (old, before), (new, after) = (
        weight_of(model) for model in (portable, lower.run_passes(portable, [lower.narrow_weights(63)]))
    )
    assert np.abs(new).max() == 63
    error = np.abs(new * after.reshape(1, 3, 1, 1) - old * before.reshape(1, 3, 1, 1))
    assert (error <= (0.5 + 1e-6) * after.reshape(1, 3, 1, 1)).all()


def test_the_bias_of_a_transposed_convolution_stays_float(parse):
    portable = transposed(parse, np.array([0.1, 0.2, 0.3]), np.ones(6))
    lowered = lower.run_passes(portable, [lower.floor_weight_scales, lower.quantize_biases])
    (node,) = [node for node in lowered.graph if node.op_type == "ConvTranspose"]
    assert node.inputs[2].const_value.dtype == ir.DataType.FLOAT


CONCAT = """
g (float[N,2,4,4] x, float[N,2,4,4] other) => (float[N,6,4,4] y, float[N,2,4,4] z) {{
  r = Relu (x)
  e = Relu (other)
  a_fq = {concat} (r, scale)
  b_fq = {concat} ({second}, scale)
  y = Concat <axis: int = 1> (a_fq, b_fq, a_fq)
  c_fq = {mul} (e, scale)
  d_fq = {mul} (e, other_scale)
  z = Mul (c_fq, d_fq)
}}
"""


@pytest.mark.parametrize(
    ("second", "unsigned"),
    [("x", {"r": False, "x": False, "e": True}), ("e", {"r": True, "e": True}), ("r", {"r": True, "e": True})],
    ids=["one branch is signed", "no branch is signed", "one branch twice"],
)
def test_pairs_of_one_quantizer_become_unsigned_all_or_none(parse, second, unsigned):
    text = CONCAT.format(
        concat=FAKE.format(-1, -128, "input", "concat.input_quantizer"),
        mul=FAKE.format(-1, -128, "input", "mul.left_quantizer"),
        second=second,
    )
    portable = canonicalize(parse(text, scale=np.float32(0.02), other_scale=np.float32(0.05)))
    lowered = lower.run_passes(portable, [lower.unsigned_non_negative])
    assert {pair.tensor.name: pair.zero_point.dtype == np.uint8 for pair in pairs(lowered.graph)} == unsigned


def test_a_pair_that_two_quantizers_share_hands_the_sign_on(parse):
    concat, other = (FAKE.format(-1, -128, "input", f"{name}.input_quantizer") for name in ("concat", "other"))
    text = f"""
    g (float[N,2,4,4] x) => (float[N,4,4,4] y, float[N,4,4,4] z) {{
      r = Relu (x)
      e = Exp (x)
      a_fq = {concat} (x, scale)
      b_fq = {concat} (r, scale)
      y = Concat <axis: int = 1> (a_fq, b_fq)
      c_fq = {other} (r, scale)
      d_fq = {other} (e, scale)
      z = Concat <axis: int = 1> (c_fq, d_fq)
    }}
    """
    lowered = lower.run_passes(canonicalize(parse(text, scale=np.float32(0.02))), [lower.unsigned_non_negative])
    assert {pair.tensor.name: str(pair.zero_point.dtype) for pair in pairs(lowered.graph)} == {
        "x": "int8",
        "r": "int8",
        "e": "int8",
    }
