"""The conversion to fp16: held to the fp32 graph's values by onnx's own evaluator, on values that fp16 can't square."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.errors import GraphError
from qzoo.graph.edit import pairs
from qzoo.graph.half import LARGEST, SMALLEST_NORMAL, fits, to_half
from qzoo.graph.lower import run_passes, slim

CASES = settings(max_examples=50, deadline=None, derandomize=True)
LARGE = 300.0
"""300 squared is beyond 65504, and so is exp(300)."""

LAYER_NORM = """
  NAME_m = ReduceMean <keepdims = 1> (IN, axes)
  NAME_d = Sub (IN, NAME_m)
  NAME_p = SQUARE
  NAME_v = ReduceMean <keepdims = 1> (NAME_p, axes)
  NAME_e = Add (NAME_v, epsilon)
  NAME_s = Sqrt (NAME_e)
  NAME_n = Div (NAME_d, NAME_s)
  NAME = Mul (NAME_n, spread)
"""
BLOCKS = {
    "conv": "NAME = Conv <pads = [1,1,1,1]> (IN, w, b)",
    "relu": "NAME = Relu (IN)",
    "leaky": "NAME = LeakyRelu (IN)",
    "pool": "NAME = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (IN)",
    "average": "NAME_a = GlobalAveragePool (IN)\n NAME = Sub (IN, NAME_a)",
    "residual": "NAME_r = Conv <pads = [1,1,1,1]> (IN, w, b)\n NAME = Add (IN, NAME_r)",
    "softmax": "NAME_s = Softmax <axis = 1> (IN)\n NAME = Mul (NAME_s, spread)",
    "softmax, spelt out": """
      NAME_m = ReduceMax <keepdims = 1> (IN, axes)
      NAME_d = Sub (IN, NAME_m)
      NAME_x = Exp (NAME_d)
      NAME_t = ReduceSum <keepdims = 1> (NAME_x, axes)
      NAME_s = Div (NAME_x, NAME_t)
      NAME = Mul (NAME_s, spread)""",
    "layer norm": LAYER_NORM.replace("SQUARE", "Pow (NAME_d, two)"),
    "layer norm by a product": LAYER_NORM.replace("SQUARE", "Mul (NAME_d, NAME_d)"),
    "length": """
      NAME_l = ReduceL2 <keepdims = 1> (IN, axes)
      NAME_n = Div (IN, NAME_l)
      NAME = Mul (NAME_n, spread)""",
    "gelu by tanh": """
      NAME_p = Pow (IN, three)
      NAME_s = Add (IN, NAME_p)
      NAME_t = Tanh (NAME_s)
      NAME_u = Add (NAME_t, one)
      NAME = Mul (IN, NAME_u)""",
    "quantizer": "NAME_q = QuantizeLinear (IN, step, zero)\n NAME = DequantizeLinear (NAME_q, step, zero)",
}


def arrays(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "w": (random.normal(size=(4, 4, 3, 3)) / 6).astype(np.float32),
        "b": random.normal(size=4).astype(np.float32),
        "axes": np.array([1, 2, 3], np.int64),
        "epsilon": np.float32(1e-12),
        "spread": np.float32(LARGE),
        "one": np.float32(1),
        "two": np.float32(2),
        "three": np.float32(3),
        "step": np.float32(LARGE / 127),
        "zero": np.int8(0),
    }


def network(parse, blocks: list[str], seed: int = 0) -> ir.Model:
    lines, value = [], "x"
    for place, block in enumerate(blocks):
        name = f"v{place}"
        lines.append(BLOCKS[block].replace("NAME", name).replace("IN", value))
        value = name
    text = "\n".join(lines)
    used = {name: array for name, array in arrays(seed).items() if f"{name})" in text or f"{name}," in text}
    return parse(f"g (float[2,4,6,6] x) => (float[2,4,6,6] {value}) {{ {text} }}", **used)


def named(model: ir.Model) -> ir.Model:
    for node in model.graph:
        node.name = node.name or f"make_{node.outputs[0].name}"
    return model


def checked(model: ir.Model) -> onnx.ModelProto:
    """The graph, every type in it inferred anew and right."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def dtypes(model: ir.Model) -> dict[str, str]:
    """The type that each node computes in, by the operator's name: of its last float output."""
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(checked(model), strict_mode=True))
    return {str(node.name): node.outputs[0].dtype.name for node in inferred.graph}


@CASES
@given(blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_large_activations_stay_finite_and_close_to_fp32(parse, evaluate, blocks, seed):
    before = named(network(parse, blocks, seed))
    after = run_passes(before, [to_half])
    x = np.random.default_rng(seed).uniform(-LARGE, LARGE, (2, 4, 6, 6)).astype(np.float32)
    (expected,), (found,) = evaluate(before, x=x), evaluate(after, x=x)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    # 2^-11 of the largest value at each of at most some 30 roundings; a quantizer may round to the next step
    steps = 2 * LARGE / 127 * blocks.count("quantizer")
    growth = 4.0 ** sum(block in ("conv", "residual") for block in blocks)
    softmaxes = sum("softmax" in block for block in blocks)  # exp makes a relative error of an absolute one
    if not softmaxes:
        assert np.abs(found - expected).max() <= (0.03 * max(np.abs(expected).max(), LARGE) + steps) * growth


@CASES
@given(blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=5))
def test_inputs_outputs_and_names_stay_and_types_are_right(parse, blocks):
    before = named(network(parse, blocks))
    after = run_passes(before, [to_half, slim])
    checked(after)
    for values in (lambda m: m.graph.inputs, lambda m: m.graph.outputs):
        assert [(v.name, v.dtype) for v in values(after)] == [(v.name, v.dtype) for v in values(before)]
    assert {node.name for node in before.graph} <= {node.name for node in after.graph}


@CASES
@given(blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=5))
def test_the_same_graph_gives_the_same_bytes_and_stays_as_it_was(parse, blocks):
    before = named(network(parse, blocks))
    untouched = ir.to_proto(before).SerializeToString(deterministic=True)
    one, two = (ir.to_proto(run_passes(before, [to_half])).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
    assert ir.to_proto(before).SerializeToString(deterministic=True) == untouched


@pytest.mark.parametrize("blocks", [["conv", "relu", "residual"], ["conv", "pool", "leaky"]])
def test_what_is_safe_computes_in_fp16_with_one_cast_at_either_end(parse, blocks):
    after = run_passes(named(network(parse, blocks)), [to_half])
    assert [node.op_type for node in after.graph].count("Cast") == 2
    computing = {name: dtype for name, dtype in dtypes(after).items() if "cast" not in name}
    assert {*computing.values()} == {"FLOAT16"}


@pytest.mark.parametrize(
    ("block", "whole", "half"),
    [
        ("softmax", ["v0_s"], ["v0"]),
        ("softmax, spelt out", ["v0_x", "v0_t", "v0_s"], ["v0_d", "v0"]),
        ("layer norm", ["v0_p", "v0_v", "v0_e", "v0_s", "v0_n"], ["v0_d", "v0"]),
        ("layer norm by a product", ["v0_p", "v0_v", "v0_e", "v0_s", "v0_n"], ["v0_d", "v0"]),
        ("gelu by tanh", ["v0_p", "v0_s", "v0_t"], ["v0_u", "v0"]),
        ("average", ["v0_a"], ["v0"]),
    ],
)
def test_what_squares_sums_or_exponentiates_stays_in_fp32_until_it_is_bounded(parse, block, whole, half):
    found = dtypes(run_passes(named(network(parse, [block])), [to_half]))
    assert {found[f"make_{name}"] for name in whole} == {"FLOAT"}
    assert {found[f"make_{name}"] for name in half} == {"FLOAT16"}


@pytest.mark.parametrize("value", [1e5, -1e30, 1e-12, np.inf])
def test_an_operator_whose_constant_fp16_does_not_hold_stays_in_fp32(parse, value):
    model = named(parse("g (float[2] x) => (float[2] y) { a = Add (x, c)\n y = Relu (a) }", c=np.float32(value)))
    found = dtypes(run_passes(model, [to_half]))
    assert found["make_a"] == "FLOAT"


@pytest.mark.parametrize(
    ("array", "held"),
    [
        ([0.0], True),
        ([LARGEST], True),
        ([65520.0], False),
        ([SMALLEST_NORMAL], True),
        ([1e-5], False),
        ([1, 1e-9], True),
    ],
)
def test_an_array_fits_where_its_largest_value_keeps_11_bits(array, held):
    assert fits(np.array(array, np.float32)) is held


QUANTIZED = """g (float[2,4,6,6] x) => (float[2,4,6,6] y) {
    xq = QuantizeLinear (x, xs, zero)
    xd = DequantizeLinear (xq, xs, zero)
    wd = DequantizeLinear <axis = 0> (w, ws)
    c = Conv <pads = [1,1,1,1]> (xd, wd, b)
    r = Relu (c)
    rq = QuantizeLinear (r, rs, zero)
    rd = DequantizeLinear (rq, rs, zero)
    y = Conv <pads = [1,1,1,1]> (rd, wd, b)
}"""


def quantized(parse, **changes: object) -> ir.Model:
    random = np.random.default_rng(0)
    values = {
        "zero": np.int8(0),
        "xs": np.float32(0.03),
        "rs": np.float32(0.05),
        "w": random.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
        "ws": np.full(4, 0.002, np.float32),
        "b": random.normal(size=4).astype(np.float32),
    }
    return named(parse(QUANTIZED, **{**values, **changes}))


def test_int8_convolutions_stay_between_quantizers_with_fp16_scales_by_opset_19(parse):
    after = run_passes(quantized(parse), [to_half])
    assert after.opset_imports[""] == 19
    stored = [value for value in after.graph.initializers.values() if value.dtype == ir.DataType.INT8]
    assert sorted(value.const_value.shape.rank() for value in stored) == [0, 4]
    first, second = pairs(after.graph)
    # the image is quantized as it comes, in fp32, on the scale that fp16 has
    assert [node.inputs[1].dtype.name for node in (first.quantize, first.dequantize)] == ["FLOAT", "FLOAT16"]
    assert first.scale == np.float32(np.float16(0.03))
    assert [node.inputs[1].dtype.name for node in (second.quantize, second.dequantize)] == ["FLOAT16", "FLOAT16"]
    assert [node.op_type for node in after.graph].count("Cast") == 1  # the graph's output


def test_a_quantized_graph_computes_the_same_in_onnxruntime_but_for_fp16s_rounding(parse):
    before = quantized(parse)
    after = run_passes(before, [to_half])
    x = np.random.default_rng(1).normal(size=(2, 4, 6, 6)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected, found = (
        onnxruntime.InferenceSession(ir.to_proto(m).SerializeToString(), options).run(None, {"x": x})[0]
        for m in (before, after)
    )
    noise = ((found - expected) ** 2).sum()
    assert 10 * np.log10((expected**2).sum() / noise) > 35


@pytest.mark.parametrize("scale", [1e-6, 2.0**-100, 1e4])
def test_a_layer_whose_scales_fp16_does_not_hold_stays_in_fp32(parse, scale):
    scales = np.full(4, 0.002, np.float32)
    scales[2] = scale
    after = run_passes(quantized(parse, ws=scales), [to_half])
    found = dtypes(after)
    assert (found["make_wd"], found["make_c"], found["make_y"]) == ("FLOAT", "FLOAT", "FLOAT")
    # the activation between them is in fp16, and its pair's scale with it
    assert {pair.scale for pair in pairs(after.graph)} == {np.float32(0.03), np.float32(np.float16(0.05))}


def test_what_a_branch_reads_from_outside_is_still_fp32(parse):
    text = """g (bool c, float[2] x) => (float[2] y) {
        a = Relu (x)
        y = If (c) <
            then_branch = t () => (float[2] p) { p = Exp (a) },
            else_branch = e () => (float[2] r) { r = Neg (a) }
        >
    }"""
    model = run_passes(named(parse(text)), [to_half])
    session = onnxruntime.InferenceSession(checked(model).SerializeToString())
    (y,) = session.run(None, {"c": np.array(True), "x": np.array([0.5, -1], np.float32)})
    np.testing.assert_allclose(y, np.exp([0.5, 0]), rtol=1e-3)


def test_an_input_that_is_an_output_too_stays(parse):
    model = run_passes(
        named(parse("g (float[2] x) => (float[2] y, float[2] r) { r = Relu (x)\n y = Neg (r) }")), [to_half]
    )
    checked(model)
    assert [value.name for value in model.graph.outputs] == ["y", "r"]


def test_the_scales_of_a_resize_stay_float32_as_the_standard_has_them(parse):
    text = "g (float[1,1,2,2] x) => (float[1,1,4,4] y) { y = Resize (x, , scales) }"
    model = run_passes(named(parse(text, scales=np.array([1, 1, 2, 2], np.float32))), [to_half])
    assert dtypes(model)["make_y"] == "FLOAT16"


def test_an_older_opset_is_refused_with_a_way_out():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[2] x) => (float[2] y) { y = Relu (x) }'
    )
    with pytest.raises(GraphError, match="the graph has opset 13; convert it to 19 first"):
        to_half(ir.from_proto(proto))
