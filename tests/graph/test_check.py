"""Each invariant of a portable graph: a graph that breaks it, and the words it is refused with."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from qzoo.errors import GraphError
from qzoo.graph.check import check_lowered, check_portable
from qzoo.graph.edit import add_initializer

TEXT = """
g (float[N,2,4,4] x) => (float[N,3,4,4] y) {
  [quantize_x] x_int = QuantizeLinear (x, x_scale, zero)
  [dequantize_x] x_q = DequantizeLinear (x_int, x_scale, zero)
  [dequantize_w] w_q = DequantizeLinear <axis: int = 0> (w, w_scale)
  [conv] y = Conv (x_q, w_q, b)
}
"""


@pytest.fixture
def arrays():
    return {
        "x_scale": np.float32(0.02),
        "zero": np.int8(0),
        "w": np.arange(-3, 3, dtype=np.int8).reshape(3, 2, 1, 1),
        "w_scale": np.array([0.1, 0.2, 0.3], np.float32),
        "b": np.zeros(3, np.float32),
    }


@pytest.fixture
def annotated(parse):
    def build(text: str, arrays: dict[str, np.ndarray]) -> ir.Model:
        model = parse(text, **arrays)
        for node in model.graph:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                node.metadata_props.update({"qzoo.role": "input", "qzoo.module": "conv.input_quantizer"})
        return model

    return build


def test_a_sound_graph_is_both_portable_and_lowered(annotated, arrays):
    model = annotated(TEXT, arrays)
    check_portable(model)
    check_lowered(model)


@pytest.mark.parametrize("check", [check_portable, check_lowered])
@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("x_scale", np.float32(0), r"quantize_x: every scale must be finite and > 0, found 0\.0"),
        ("x_scale", np.float32(-0.5), r"quantize_x: every scale must be finite and > 0, found -0\.5"),
        ("x_scale", np.float32(np.nan), r"quantize_x: every scale must be finite and > 0, found nan"),
        ("x_scale", np.float32(np.inf), r"quantize_x: every scale must be finite and > 0, found inf"),
        (
            "w_scale",
            np.array([0.1, 0, 0.3], np.float32),
            r"dequantize_w: every scale must be finite and > 0, found 0\.0",
        ),
        (
            "w_scale",
            np.array([0.1, np.nan, 1], np.float32),
            r"dequantize_w: every scale must be finite and > 0, found nan",
        ),
        (
            "w",
            np.full((3, 2, 1, 1), -128, np.int8),
            r"dequantize_w: an int8 weight is -128; weights lie in \[-127, 127\]",
        ),
    ],
)
def test_a_value_that_breaks_an_invariant_is_refused_with_its_node(annotated, arrays, check, name, array, words):
    arrays[name] = array
    with pytest.raises(GraphError, match=f"^{words}") as error:
        check(annotated(TEXT, arrays))
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "<axis: int = 0> (w, w_scale)",
            "<axis: int = 1> (w, w_scale2)",
            r"dequantize_w: weights are quantized per channel on axis 0, not 1",
        ),
        ("<axis: int = 0>", "", r"dequantize_w: weights are quantized per channel on axis 0, not 1"),
        (
            "Conv (x_q, w_q, b)",
            "Conv (x_q, w_q, b) [bn] z = BatchNormalization (y, b, b, b, b)",
            r"bn: BatchNorm must be folded; declare a fusion for it",
        ),
        (
            "Conv (x_q, w_q, b)",
            "Conv (x_q, w_q, b) [left] z = qzoo.FakeQuantize (y, x_scale)",
            r"left: qzoo::FakeQuantize is not plain ONNX",
        ),
        ("(x_int, x_scale, zero)", "(x_int, x_scale2, zero)", r"quantize_x: its DequantizeLinear has another scale"),
        ("(x_int, x_scale, zero)", "(x_int, x_scale, one)", r"quantize_x: its DequantizeLinear has another zero point"),
        (
            "(x_int, x_scale, zero)",
            "(x_int, x_scale, wide)",
            r"quantize_x: its DequantizeLinear has another zero point",
        ),
        (
            "[dequantize_x]",
            "[cast_x] unused = Cast <to: int = 1> (x_int) [dequantize_x]",
            r"quantize_x: a QuantizeLinear must be read by one DequantizeLinear, not by cast_x, dequantize_x",
        ),
        (
            "QuantizeLinear (x, x_scale,",
            "QuantizeLinear (x, x,",
            r"scale of quantize_x must be an initializer, but x is",
        ),
        ("[dequantize_x]", "[quantize_x]", "quantize_x: two nodes have this name, which onnxruntime refuses"),
        ("Conv (x_q, w_q, b)", "Conv (x_q, w_q, nowhere)", "not valid ONNX: .*nowhere"),
        ("Conv (x_q, w_q, b)", "Convolve (x_q, w_q, b)", "not valid ONNX: .*Convolve"),
    ],
)
def test_a_node_that_breaks_an_invariant_is_refused_by_name(annotated, arrays, old, new, words):
    arrays |= {
        "x_scale2": np.float32(0.03),
        "w_scale2": np.array([0.1, 0.2], np.float32),
        "one": np.int8(1),
        "wide": np.uint8(0),
    }
    assert old in TEXT
    model = annotated(TEXT.replace(old, new, 1), arrays)
    for check in (check_lowered, check_portable):
        with pytest.raises(GraphError, match=f"^{words}"):
            check(model)


def test_a_weight_per_tensor_needs_no_axis(annotated, arrays):
    arrays["w_scale"] = np.float32(0.1)
    check_portable(annotated(TEXT.replace("<axis: int = 0>", ""), arrays))


@pytest.mark.parametrize(
    ("operator", "axis", "words"),
    [
        ("Conv", 0, None),
        ("Conv", 1, r"dequantize_w: weights are quantized per channel on axis 0, not 1"),
        ("ConvTranspose", 1, None),
        ("ConvTranspose", 0, r"dequantize_w: weights of a ConvTranspose are quantized per channel on axis 1, not 0"),
    ],
)
def test_a_weight_per_channel_has_its_scales_along_the_output_channels(annotated, arrays, operator, axis, words):
    arrays["w"] = np.arange(-3, 3, dtype=np.int8).reshape(3, 2, 1, 1).swapaxes(0, operator == "ConvTranspose")
    arrays["w_scale"] = np.full(arrays["w"].shape[axis], 0.1, np.float32)
    text = TEXT.replace("Conv (", f"{operator} (").replace("axis: int = 0", f"axis: int = {axis}")
    model = annotated(text, arrays)
    for check in (check_lowered, check_portable):
        if words is None:
            check(model)
        else:
            with pytest.raises(GraphError, match=f"^{words}"):
                check(model)


def test_a_weight_that_a_convolution_and_a_transposed_one_share_can_only_be_quantized_per_tensor(annotated, arrays):
    text = TEXT.replace("Conv (x_q, w_q, b)", "Conv (x_q, w_q, b) [back] z = ConvTranspose (y, w_q)")
    for axis, length in ((0, 3), (1, 2)):
        arrays["w_scale"] = np.full(length, 0.1, np.float32)
        with pytest.raises(GraphError, match="per channel on axis"):
            check_portable(annotated(text.replace("axis: int = 0", f"axis: int = {axis}"), arrays))
    arrays["w_scale"] = np.float32(0.1)
    check_portable(annotated(text.replace("<axis: int = 0>", ""), arrays))


@pytest.mark.parametrize("zero", [np.uint8(0), np.uint8(128), np.int8(1)])
def test_only_a_lowered_graph_may_have_another_zero_point_or_type(annotated, arrays, zero):
    arrays["zero"] = zero
    model = annotated(TEXT, arrays)
    check_lowered(model)
    with pytest.raises(GraphError, match=r"^quantize_x: a portable graph has int8 and zero point 0, not .*int8"):
        check_portable(model)


@pytest.mark.parametrize("name", ["quantize_x", "dequantize_x"])
@pytest.mark.parametrize("key", ["qzoo.role", "qzoo.module"])
def test_a_pair_without_its_annotation_is_not_portable(annotated, arrays, node, name, key):
    model = annotated(TEXT, arrays)
    del node(model, name).metadata_props[key]
    check_lowered(model)
    with pytest.raises(GraphError, match=rf"^{name}: no qzoo\.role or qzoo\.module annotation"):
        check_portable(model)


def test_two_pairs_on_one_tensor_with_the_same_scale_are_not_portable(annotated, arrays):
    second = """
      [quantize_again] again_int = QuantizeLinear (x, x_scale_too, zero)
      [dequantize_again] again_q = DequantizeLinear (again_int, x_scale_too, zero)
      [dequantize_w]"""
    arrays["x_scale_too"] = arrays["x_scale"]
    with pytest.raises(GraphError, match=r"^quantize_again: x has two pairs with the same scale"):
        check_portable(annotated(TEXT.replace("[dequantize_w]", second), arrays))
    arrays["x_scale_too"] = np.float32(0.03)
    check_portable(annotated(TEXT.replace("[dequantize_w]", second), arrays))


def test_a_taken_name_of_another_value_gets_a_number_and_the_same_value_is_shared(annotated, arrays):
    graph = annotated(TEXT, arrays).graph
    same = add_initializer(graph, "x_scale", np.asarray(0.02, np.float32))
    other = add_initializer(graph, "x_scale", np.asarray(0.5, np.float32))
    wider = add_initializer(graph, "x_scale", np.asarray([0.5], np.float32))
    assert [value.name for value in (same, other, wider)] == ["x_scale", "x_scale_1", "x_scale_2"]
    assert add_initializer(graph, "x_scale", np.asarray(0.5, np.float32)) is other
    np.testing.assert_array_equal(graph.initializers["x_scale"].const_value.numpy(), np.float32(0.02))
