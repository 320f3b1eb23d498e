"""Biases for what adds nothing, held to onnx's own evaluator, and OpenVINO's values to onnxruntime's."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.backends import cpu
from qzoo.backends.ort import reference
from qzoo.backends.ov import OpenVINO
from qzoo.graph.biases import TINY, TINY_HALF, add_biases
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.edit import constant
from qzoo.graph.lower import run_passes
from qzoo.pipeline.assemble import serialize
from qzoo.spec import Recipe

RNG = np.random.default_rng(0)
INPUT = 'qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "{}">'
WEIGHT = 'qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "w">'
BIASES = {
    "none": None,
    "zeros": np.zeros(4, np.float32),
    "one that is not zero": np.array([0, 0, 0, 0.5], np.float32),
    "small ones": np.full(4, 1e-30, np.float32),
}


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def convolution(parse):
    """x -> quantized -> Conv -> y, which a Relu reads, too."""

    def build(bias: np.ndarray | None, group: int = 1, dims: int = 2, *, reader: str = "Relu (y)"):
        sizes, ones = ",".join(["6"] * dims), ",".join(["1"] * dims)
        text = f"""g (float[N,4,{sizes}] x) => (float[N,4,{sizes}] y, float[N,4,{sizes}] z)
            <float[N,4,{sizes}] q, float[4,{4 // group},{ones}] v> {{
            [n1] q = {INPUT.format("q")} (x, s)
            [n2] v = {WEIGHT} (w, ws)
            [conv] y = Conv <group = {group}> (q, v{"" if bias is None else ", b"})
            [reader] z = {reader} }}"""
        w, ws = weights(4, 4 // group, *(1,) * dims), RNG.uniform(0.01, 0.03, 4).astype(np.float32)
        arrays = {"s": np.float32(0.02), "w": w, "ws": ws} | ({} if bias is None else {"b": bias})
        return canonicalize(parse(text, **arrays))

    return build


@pytest.fixture(scope="module")
def product(parse):
    """A quantized x by its transpose -> y, which one node reads or two."""

    def build(body: str, outputs: str = "float[N,5,5] z"):
        text = f"""g (float[N,5,8] x) => ({outputs}) <float[N,5,8] q, float[N,8,5] k, float[N,8,5] kt> {{
            [n1] q = {INPUT.format("q")} (x, s)
            [turn] k = Transpose <perm = [0, 2, 1]> (x)
            [n2] kt = {INPUT.format("k")} (k, s)
            [product] y = MatMul (q, kt)
            {body} }}"""
        return canonicalize(parse(text, s=np.float32(0.02)))

    return build


ONCE, TWICE = "[r] z = Softmax (y)", "[r1] e = Softmax (y)\n [r2] z = Add (e, y)"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    bias=st.sampled_from(sorted(BIASES)),
    group=st.sampled_from([1, 2, 4]),
    least=st.sampled_from([TINY, TINY_HALF]),
    scale=st.sampled_from([0.0, 1e-35, 1e-3, 1.0]),
)
def test_no_value_of_a_convolution_changes_by_more_than_what_is_added(convolution, evaluate, bias, group, least, scale):
    model = convolution(BIASES[bias], group)
    before, after = model.clone(), run_passes(model, [add_biases(least)])
    x = weights(2, 4, 6, 6) * np.float32(scale)
    for expected, found in zip(evaluate(before, x=x), evaluate(after, x=x), strict=True):
        difference = np.abs(found.astype(np.float64) - expected)
        rounding = np.spacing(np.abs(expected)) / 2
        assert (difference <= least + rounding).all()
        assert not difference[rounding > least].any()


@pytest.mark.parametrize("bias", BIASES)
def test_only_a_convolution_that_adds_nothing_gets_a_bias(convolution, node, bias):
    found = constant(node(run_passes(convolution(BIASES[bias]), [add_biases(TINY)]), "Conv").inputs[2])
    expected = np.full(4, TINY, np.float32) if bias in ("none", "zeros") else BIASES[bias]
    np.testing.assert_array_equal(found, expected)


def test_a_convolution_in_float_stays(parse, node):
    text = "g (float[N,4,6,6] x) => (float[N,4,6,6] y) { [conv] y = Conv (x, w) }"
    assert len(node(run_passes(parse(text, w=weights(4, 4, 1, 1)), [add_biases(TINY)]), "Conv").inputs) == 2


@pytest.mark.parametrize(("body", "sums"), [(ONCE, 0), (TWICE, 1)])
def test_a_product_of_two_activations_is_followed_by_a_sum_where_several_read_it(product, evaluate, body, sums):
    model = product(body)
    after = run_passes(model, [add_biases(TINY)])
    assert len(list(after.graph)) == len(list(model.graph)) + sums
    x = weights(2, 5, 8)
    np.testing.assert_array_equal(evaluate(after, x=x)[0], evaluate(model, x=x)[0])


def test_a_product_that_is_an_output_keeps_its_name(product):
    model = product(ONCE, "float[N,5,5] y, float[N,5,5] z")
    after = run_passes(model, [add_biases(TINY)])
    assert [value.name for value in after.graph.outputs] == ["y", "z"]
    assert after.graph.outputs[0].producer().op_type == "Add"


PRECISIONS = {
    "int8": ("f32", True),
    "bf16": ("bf16", cpu.bf16(cpu.cpu_flags(), cpu.onednn_limit(os.environ))),
    "int8+fp16": ("f16", cpu.fp16(cpu.cpu_flags(), cpu.onednn_limit(os.environ))),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "kind", ["one group", "depthwise", "zeros for a bias", "one axis", "read by two adds", "product"]
)
def test_openvino_computes_what_several_nodes_read_right(convolution, product, kind, precision):
    models = {
        "one group": lambda: convolution(None),
        "depthwise": lambda: convolution(None, 4),
        "zeros for a bias": lambda: convolution(BIASES["zeros"]),
        "one axis": lambda: convolution(None, dims=1),
        "read by two adds": lambda: convolution(None, reader="Add (y, x)"),
        "product": lambda: product(TWICE),
    }
    hint, there = PRECISIONS[precision]
    if not there:
        pytest.skip(f"this CPU has no {hint}")
    backend, recipe = OpenVINO(), Recipe(target="openvino", precision="int8" if hint == "bf16" else precision)
    graph = serialize(backend.lower(models[kind](), replace(recipe, roles=backend.roles), backend.target()))
    session = reference(graph)
    (given,) = session.get_inputs()
    x = weights(2, *(size for size in given.shape[1:]))
    expected = session.run(None, {"x": x})
    core = openvino.Core()
    found = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": hint})(x)
    for index, values in enumerate(expected):
        error = np.abs(found[index] - values).max() / np.abs(values).max()
        assert error < (1e-5 if hint == "f32" else 0.02)
