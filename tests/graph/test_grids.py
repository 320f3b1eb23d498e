"""Tensors quantized twice, held to the values that onnx's own evaluator and a closed form give."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.graph import grids
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.edit import pairs
from qzoo.graph.lower import run_passes

CASES = settings(max_examples=60, deadline=None, derandomize=True)
POOL = "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>"
BOTH = [grids.carry_grids, grids.round_once]


def fake(path: str) -> str:
    return f'qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "{path}">'


@pytest.fixture(scope="session")
def pooled(parse):
    """x -> quantized on step `first` -> max-pool -> quantized on step `second` -> Exp, portable."""

    def build(first: float, second: float) -> ir.Model:
        text = f"""g (float[N,1,4,4] x) => (float[N,1,2,2] y) <float[N,1,4,4] a, float[N,1,2,2] b, float[N,1,2,2] c> {{
            [n1] a = {fake("pool.input_quantizer")} (x, s1)
            [n2] b = {POOL} (a)
            [n3] c = {fake("conv.input_quantizer")} (b, s2)
            [n4] y = Exp (c) }}"""
        return canonicalize(parse(text, s1=np.float32(first), s2=np.float32(second)))

    return build


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 1, 4, 4)).astype(np.float32)


def on_grid(x: np.ndarray, step: float) -> np.ndarray:
    return np.clip(np.rint(x / np.float32(step)), -128, 127) * np.float32(step)


def max_pool(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, 1, 2, 2, 2, 2).max((3, 5))


def test_a_pool_between_two_grids_ends_on_the_first_alone(pooled):
    lowered = run_passes(pooled(0.02, 0.03), BOTH)
    assert [float(pair.scale) for pair in pairs(lowered.graph)] == pytest.approx([0.02, 0.02])
    (pool,) = [node for node in lowered.graph if node.op_type == "MaxPool"]
    (after,) = [user for user, _ in pool.outputs[0].uses()]
    assert pool.inputs[0].producer().op_type == "DequantizeLinear"
    assert after.op_type == "QuantizeLinear"


@CASES
@given(st.floats(0.005, 0.1), st.floats(0.005, 0.1), st.integers(0, 2**16))
def test_rounding_once_leaves_the_first_rounding_and_moves_nothing_by_more_than_half_the_second_step(
    pooled, evaluate, first, second, seed
):
    portable, x = pooled(first, second), images(seed)
    (twice,), (once,) = evaluate(portable, x=x), evaluate(run_passes(portable, BOTH), x=x)
    np.testing.assert_allclose(once, np.exp(max_pool(on_grid(x, first))), rtol=1e-6)
    kept = np.abs(np.log(once)) <= 127 * second
    assert np.abs(np.log(once) - np.log(twice))[kept].max(initial=0) <= second / 2 + 1e-6


@CASES
@given(st.floats(0.005, 0.1), st.floats(0.005, 0.1), st.integers(0, 2**16))
def test_carrying_a_grid_changes_no_value(pooled, evaluate, first, second, seed):
    portable, x = pooled(first, second), images(seed)
    np.testing.assert_array_equal(
        evaluate(run_passes(portable, [grids.carry_grids]), x=x)[0], evaluate(portable, x=x)[0]
    )


def test_a_grid_is_carried_through_every_move_in_a_row_and_to_every_reader(parse, evaluate):
    text = f"""g (float[N,1,4,4] x) => (float[N,4] y, float[N,4] z)
        <float[N,1,4,4] a, float[N,1,2,2] b, float[N,1,2,2] c, float[N,4] d> {{
            [n1] a = {fake("tile.input_quantizer")} (x, s)
            [n2] b = {POOL} (a)
            [n3] c = Transpose <perm = [0, 1, 3, 2]> (b)
            [n4] d = Flatten (c)
            [n5] y = Exp (d)
            [n6] z = Neg (d) }}"""
    portable = canonicalize(parse(text, s=np.float32(0.05)))
    lowered = run_passes(portable, [grids.carry_grids])
    assert [pair.tensor.name for pair in pairs(lowered.graph)] == ["x", "b", "c", "d"]
    last = next(pair for pair in pairs(lowered.graph) if pair.tensor.name == "d")
    assert {user.op_type for user, _ in last.output.uses()} == {"Exp", "Neg"}
    for ours, theirs in zip(evaluate(lowered, x=images()), evaluate(portable, x=images()), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_moves_of_tensors_that_are_not_quantized_and_moves_that_are_outputs_stay(parse):
    text = f"""g (float[N,1,4,4] x) => (float[N,1,2,2] y, float[N,16] z) <float[N,1,4,4] a, float[N,16] b> {{
            [n1] a = {fake("pool.input_quantizer")} (x, s)
            [n2] y = {POOL} (a)
            [n3] b = Flatten (x)
            [n4] z = Exp (b) }}"""
    portable = canonicalize(parse(text, s=np.float32(0.05)))
    lowered = run_passes(portable, BOTH)
    assert [node.name for node in lowered.graph] == [node.name for node in portable.graph]


@pytest.mark.parametrize(("other", "left"), [("a", 1), ("x", 3)])
def test_pairs_of_one_quantizer_go_together_or_not_at_all(parse, other, left):
    text = f"""g (float[N,4] x) => (float[N,8] y) <float[N,4] a, float[N,4] b, float[N,4] c> {{
            [n1] a = {fake("pool.input_quantizer")} (x, s1)
            [n2] b = {fake("concat.input_quantizer")} (a, s2)
            [n3] c = {fake("concat.input_quantizer")} ({other}, s2)
            [n4] y = Concat <axis = 1> (b, c) }}"""
    portable = canonicalize(parse(text, s1=np.float32(0.05), s2=np.float32(0.07)))
    assert len(list(pairs(run_passes(portable, BOTH).graph))) == left


def test_two_quantizers_of_one_float_tensor_stay_two(parse):
    text = f"""g (float[N,4] x) => (float[N,4] y, float[N,4] z) <float[N,4] a, float[N,4] b> {{
            [n1] a = {fake("one.input_quantizer")} (x, s1)
            [n2] b = {fake("other.input_quantizer")} (x, s2)
            [n3] y = Exp (a)
            [n4] z = Exp (b) }}"""
    portable = canonicalize(parse(text, s1=np.float32(0.05), s2=np.float32(0.07)))
    assert len(list(pairs(run_passes(portable, BOTH).graph))) == 2
