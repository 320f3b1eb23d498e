"""Weights of MatMuls, stored the way the operator reads them."""

from __future__ import annotations

import numpy as np
import pytest

from qzoo.graph.check import check_lowered
from qzoo.graph.lower import run_passes
from qzoo.graph.transposed import store_transposed

RNG = np.random.default_rng(0)
W = RNG.integers(-127, 128, (5, 8), np.int8)
X = RNG.standard_normal((2, 3, 8)).astype(np.float32)
TEXT = """
agraph (float[N, 3, 8] x) => (float[N, 3, 5] y) {
  [dequantize_w] f = DequantizeLinear <axis: int = 0> (w, s)
  t = Transpose <perm: ints = [1, 0]> (f)
  y = MatMul (x, t)
}"""


@pytest.fixture
def annotated(parse):
    def build(text: str, **arrays: np.ndarray):
        model = parse(text, **arrays)
        for node in model.graph:
            if node.op_type == "DequantizeLinear":
                node.metadata_props.update({"qzoo.role": "weight", "qzoo.module": "fc.weight_quantizer"})
        return model

    return build


@pytest.mark.parametrize("scale", [RNG.uniform(0.01, 0.1, 5), np.asarray(0.05)], ids=["per channel", "per tensor"])
def test_the_transposed_integers_are_stored_and_the_values_stay(annotated, evaluate, scale):
    text = TEXT if scale.ndim else TEXT.replace("<axis: int = 0> ", "")
    before = annotated(text, w=W, s=scale.astype(np.float32))
    after = run_passes(before, [store_transposed])
    check_lowered(after)
    assert [node.op_type for node in after.graph] == ["DequantizeLinear", "MatMul"]
    (stored,) = [value for value in after.graph.initializers.values() if value.dtype.name == "INT8"]
    assert np.array_equal(stored.const_value.numpy(), W.T)
    np.testing.assert_array_equal(evaluate(after, x=X)[0], evaluate(before, x=X)[0])


def test_a_transposed_weight_that_something_else_reads_stays(annotated):
    text = TEXT.replace("=> (float[N, 3, 5] y)", "=> (float[N, 3, 5] y, float[8, 5] z)").replace(
        "  y =", "  z = Relu (t)\n  y ="
    )
    after = store_transposed(annotated(text, w=W, s=RNG.uniform(0.01, 0.1, 5).astype(np.float32)))
    assert "Transpose" in [node.op_type for node in after.graph]
