"""A BatchNormalization that training left, folded into the scales of the layer before it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx.reference import ReferenceEvaluator

from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.edit import required_constant, weight_dequantizers

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 6, 6)).astype(np.float32)
W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
STEP = (np.abs(W).max((1, 2, 3)) / 127).astype(np.float32)
NORM = {
    "gamma": np.array([1.5, -0.5, 0.0, 1e-12], np.float32),
    "beta": np.array([0.1, -2.0, 1.5, 1.5], np.float32),
    "mean": np.array([0.2, 0.3, -0.4, 5.0], np.float32),
    "var": np.array([0.5, 2.0, 1.0, 1e-8], np.float32),
}

QUANTIZED = """
agraph (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {
  w_fq = qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "q"> (w, w_scale)
  c = Conv (x, w_fq)
  y = BatchNormalization <epsilon: float = 1e-5> (c, gamma, beta, mean, var)
}
"""


def norm(y: np.ndarray, gamma, beta, mean, var) -> np.ndarray:
    """y' = gamma (y - mean) / sqrt(var + epsilon) + beta over axis 1, in double precision."""
    shape = (1, -1, *[1] * (y.ndim - 2))
    gamma, beta, mean, var = (value.astype(np.float64).reshape(shape) for value in (gamma, beta, mean, var))
    return gamma * (y.astype(np.float64) - mean) / np.sqrt(var + 1e-5) + beta


def folded_weight(model) -> tuple[np.ndarray, np.ndarray]:
    (node,) = weight_dequantizers(model.graph)
    return required_constant(node.inputs[0], "weight"), required_constant(node.inputs[1], "scale")


CONV = """<ir_version: 10, opset_import: ["" : 18]>
g (double[N, C, H, W] x, double[O, C, K, K] w) => (double[N, O, P, Q] y) { y = Conv (x, w) }"""


def conv(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    feeds = {"x": x.astype(np.float64), "w": w.astype(np.float64)}
    return ReferenceEvaluator(onnx.parser.parse_model(CONV)).run(None, feeds)[0]


def test_the_values_are_the_batchnorms_for_gamma_of_either_sign_zero_and_tiny(parse, evaluate):
    model = canonicalize(parse(QUANTIZED, w=W, w_scale=STEP, **NORM))
    quantized = np.clip(np.rint(W / STEP.reshape(-1, 1, 1, 1)), -127, 127) * STEP.reshape(-1, 1, 1, 1)
    expected = norm(conv(X, quantized), **NORM)
    (got,) = evaluate(model, x=X)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_the_integers_that_were_trained_stay_but_for_their_sign(parse):
    stored, scale = folded_weight(canonicalize(parse(QUANTIZED, w=W, w_scale=STEP, **NORM)))
    trained = np.clip(np.rint(W / STEP.reshape(-1, 1, 1, 1)), -127, 127).astype(np.int8)
    np.testing.assert_array_equal(stored[0], trained[0])
    np.testing.assert_array_equal(stored[1], -trained[1])
    assert not stored[2].any()
    assert (scale > 0).all()
    np.testing.assert_allclose(
        scale[:2], np.abs(NORM["gamma"][:2]) / np.sqrt(NORM["var"][:2] + 1e-5) * STEP[:2], rtol=1e-6
    )


def test_a_scale_per_tensor_becomes_one_per_channel(parse, evaluate):
    text = QUANTIZED.replace("axis: int = 0", "axis: int = -1")
    model = canonicalize(parse(text, w=W, w_scale=np.asarray(STEP.max()), **NORM))
    quantized = np.clip(np.rint(W / STEP.max()), -127, 127) * STEP.max()
    expected = norm(conv(X, quantized), **NORM)
    assert folded_weight(model)[1].shape == (4,)
    np.testing.assert_allclose(evaluate(model, x=X)[0], expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_kept_in_float_takes_the_batchnorm_into_its_weights(parse, evaluate, bias):
    text = """agraph (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {
      c = Conv (x, w BIAS)
      y = BatchNormalization <epsilon: float = 1e-5> (c, gamma, beta, mean, var)
    }""".replace("BIAS", ", b" if bias else "")
    b = np.array([1, -1, 2, 3], np.float32)
    model = canonicalize(parse(text, w=W, **({"b": b} if bias else {}), **NORM))
    expected = norm(conv(X, W) + (b.reshape(1, -1, 1, 1) if bias else 0), **NORM)
    assert [node.op_type for node in model.graph] == ["Conv"]
    np.testing.assert_allclose(evaluate(model, x=X)[0], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_linear_layer_takes_the_batchnorm_too(parse, evaluate):
    text = """agraph (float[N, 5] x) => (float[N, 4] y) {
      w_fq = qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "q"> (w, step)
      c = Gemm <transB: int = 1> (x, w_fq, b)
      y = BatchNormalization <epsilon: float = 1e-5> (c, gamma, beta, mean, var)
    }"""
    w, b, x = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 5), (4,), (7, 5)))
    step = (np.abs(w).max(1) / 127).astype(np.float32)
    model = canonicalize(parse(text, w=w, b=b, step=step, **NORM))
    quantized = np.rint(w / step[:, None]) * step[:, None]
    expected = norm(x.astype(np.float64) @ quantized.T + b, **NORM)
    np.testing.assert_allclose(evaluate(model, x=x)[0], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_weight_that_two_layers_share_is_scaled_for_each_alone(parse, evaluate):
    text = QUANTIZED.replace("=> (float[N, 4, 4, 4] y)", "=> (float[N, 4, 4, 4] y, float[N, 4, 4, 4] z)").replace(
        "  y = Batch", "  z = Conv (x, w_fq)\n  y = Batch"
    )
    model = canonicalize(parse(text, w=W, w_scale=STEP, **NORM))
    quantized = np.rint(W / STEP.reshape(-1, 1, 1, 1)) * STEP.reshape(-1, 1, 1, 1)
    _, z = evaluate(model, x=X)
    np.testing.assert_allclose(z, conv(X, quantized), atol=1e-4)


@pytest.mark.parametrize(
    ("text", "before"),
    [
        (QUANTIZED.replace("=> (float[N, 4, 4, 4] y)", "=> (float[N, 4, 4, 4] y, float[N, 4, 4, 4] c)"), "Conv"),
        (QUANTIZED.replace("  c = Conv (x, w_fq)", "  d = Conv (x, w_fq)\n  c = Relu (d)"), "Relu"),
    ],
    ids=["whose input is read elsewhere", "behind an activation"],
)
def test_a_batchnorm_that_can_not_be_folded_becomes_a_multiplication_and_an_addition(parse, evaluate, text, before):
    model = canonicalize(parse(text, w=W, w_scale=STEP, **NORM))
    assert [node.op_type for node in model.graph][-3:] == [before, "Mul", "Add"]
    made = conv(X, np.rint(W / STEP.reshape(-1, 1, 1, 1)) * STEP.reshape(-1, 1, 1, 1))
    expected = norm(np.maximum(made, 0) if before == "Relu" else made, **NORM)
    np.testing.assert_allclose(evaluate(model, x=X)[0], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


FLOATS = st.floats(-4, 4, width=32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    gamma=hnp.arrays(np.float32, 4, elements=st.one_of(FLOATS, st.sampled_from([0.0, 1e-12, -1e-12, 1e-30]))),
    beta=hnp.arrays(np.float32, 4, elements=FLOATS),
    mean=hnp.arrays(np.float32, 4, elements=FLOATS),
    var=hnp.arrays(np.float32, 4, elements=st.floats(0, 9, width=32)),
)
def test_any_batchnorm_is_folded_to_a_hundred_thousandth_of_the_range(parse, evaluate, gamma, beta, mean, var):
    model = canonicalize(parse(QUANTIZED, w=W, w_scale=STEP, gamma=gamma, beta=beta, mean=mean, var=var))
    quantized = np.rint(W / STEP.reshape(-1, 1, 1, 1)) * STEP.reshape(-1, 1, 1, 1)
    expected = norm(conv(X, quantized), gamma, beta, mean, var)
    np.testing.assert_allclose(evaluate(model, x=X)[0], expected, atol=1e-5 * max(np.abs(expected).max(), 1))
