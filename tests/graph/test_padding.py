"""Zeros around a convolution's input, moved into its own padding."""

from __future__ import annotations

import numpy as np
import pytest

from qzoo.graph.canonicalize import canonicalize

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)
W = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
STEP = (np.abs(W).max((1, 2, 3)) / 127).astype(np.float32)
ARRAYS = {
    "w": W,
    "w_scale": STEP,
    "x_scale": np.asarray(np.abs(X).max() / 127, np.float32),
    "pads": np.array([0, 0, 0, 1, 0, 0, 1, 2], np.int64),
    "zero": np.zeros((), np.float32),
}
TEXT = """
agraph (float[N, 3, 5, 5] x) => (float[N, 4, 2, 3] y) {
  p = Pad (x, pads, zero)
  p_fq = qzoo.FakeQuantize <role: string = "input", path: string = "c.input_quantizer"> (p, x_scale)
  w_fq = qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "c.q"> (w, w_scale)
  y = Conv <strides: ints = [2, 2], pads: ints = [0, 0, 0, 0]> (p_fq, w_fq)
}"""
FLOAT = TEXT.replace("(p_fq, w_fq)", "(p, w)")


@pytest.mark.parametrize("text", [TEXT, FLOAT], ids=["quantized", "float"])
def test_a_convolution_pads_unevenly_itself_and_computes_the_same(parse, evaluate, node, text):
    before = parse(text, **ARRAYS)
    after = canonicalize(before)
    assert "Pad" not in [one.op_type for one in after.graph]
    assert list(node(after, "Conv").attributes.get_ints("pads")) == [0, 1, 1, 2]
    np.testing.assert_allclose(evaluate(after, x=X)[0], evaluate(before, x=X)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "arrays"),
    [
        ("", "", {"zero": np.ones((), np.float32)}),
        ("", "", {"pads": np.array([0, 0, -1, 1, 0, 0, 2, 2], np.int64)}),
        ("Pad (x", 'Pad <mode: string = "reflect"> (x', {}),
        ("y = Conv", "z = Relu (p_fq)\n  y = Conv", {}),
    ],
    ids=["ones", "negative", "reflect", "read elsewhere"],
)
def test_another_padding_stays(parse, evaluate, old, new, arrays):
    text = TEXT.replace(old, new) if old else TEXT
    if "z = " in new:
        text = text.replace("float[N, 4, 2, 3] y)", "float[N, 4, 2, 3] y, float[N, 3, 6, 8] z)")
    before = parse(text, **{**ARRAYS, **arrays})
    after = canonicalize(before)
    assert "Pad" in [one.op_type for one in after.graph]
    if "pads" in arrays:
        return  # numpy's evaluator has no negative ones
    for found, expected in zip(evaluate(after, x=X), evaluate(before, x=X), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
