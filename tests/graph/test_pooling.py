"""Global pooling rewritten, held to the values that onnx's own evaluator gives, and OpenVINO's to onnxruntime's."""

from __future__ import annotations

import numpy as np
import openvino
import pytest

from qzoo.backends.ort import reference
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.lower import run_passes
from qzoo.graph.pooling import pool_maxima
from qzoo.pipeline.assemble import serialize


@pytest.fixture
def reduced(parse):
    def build(axes: list[int], size: str = "3,5", keepdims: int = 1):
        reduce, ones = f"ReduceMax <keepdims = {keepdims}> (x, axes)", ",".join("1" for _ in size.split(","))
        text = f"g (float[N,8,{size}] x) => (float[N,8,{ones}] y) {{ [reduce] y = {reduce} }}"
        return parse(text, axes=np.array(axes, np.int64))

    return build


def images(*size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 8, *size)).astype(np.float32)


@pytest.mark.parametrize(
    ("axes", "size"), [([2, 3], (3, 5)), ([-2, -1], (3, 5)), ([3, 2], (3, 5)), ([2], (7,)), ([2, 3, 4], (2, 3, 4))]
)
def test_the_maximum_over_all_places_is_a_max_pool_of_their_size(reduced, evaluate, node, axes, size):
    model = reduced(axes, ",".join(map(str, size)))
    pooled = run_passes(model, [pool_maxima])
    assert tuple(node(pooled, "MaxPool").attributes.get_ints("kernel_shape")) == size
    np.testing.assert_array_equal(evaluate(pooled, x=images(*size))[0], evaluate(model, x=images(*size))[0])


@pytest.mark.parametrize(
    ("axes", "size", "keepdims"), [([1], "3,5", 1), ([2], "3,5", 1), ([2, 3], "3,5", 0), ([2, 3], "H,5", 1)]
)
def test_other_maxima_stay(reduced, axes, size, keepdims):
    kept = pool_maxima(reduced(axes, size, keepdims))
    assert [node.op_type for node in kept.graph] == ["ReduceMax"]


def test_openvino_computes_a_quantized_global_maximum_right(parse):
    fake = 'qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "q">'
    weight = 'qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "w">'
    text = f"""g (float[N,8,3,5] x) => (float[N,4,1,1] y) <float[N,8,1,1] m, float[N,8,1,1] q, float[4,8,1,1] v> {{
            [n1] m = ReduceMax <keepdims = 1> (x, axes)
            [n2] q = {fake} (m, s)
            [n3] v = {weight} (w, ws)
            [n4] y = Conv (q, v) }}"""
    w = np.random.default_rng(1).normal(size=(4, 8, 1, 1)).astype(np.float32)
    arrays = {"axes": np.array([2, 3], np.int64), "s": np.float32(0.02), "w": w, "ws": np.full(4, 0.02, np.float32)}
    graph = serialize(run_passes(canonicalize(parse(text, **arrays)), [pool_maxima]))
    expected = reference(graph).run(None, {"x": images(3, 5)})[0]
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    np.testing.assert_allclose(compiled({"x": images(3, 5)})[0], expected, atol=1e-4)
