"""What is refused before TensorRT sees it, because it would refuse it with other words or build it wrong."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_text import graph

from qzoo.backends.trt.lint import Profile, check, check_profiles
from qzoo.errors import TargetUnsupported, UsageError

S, Z = np.float32(0.1), np.int8(0)
RNG = np.random.default_rng(0)
W = RNG.integers(-127, 128, (8, 16, 3, 3)).astype(np.int8)
CONV = """g (float[2,16,8,8] x) => (float[2,8,6,6] y) {
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    f = DequantizeLinear AXIS (w, ws)
    y = Conv (d, f)
}"""


def all_known(_: str) -> bool:
    return True


def conv(axis: str = "<axis=0>", ws: object = None, **changes: object):
    values = {"s": S, "z": Z, "w": W, "ws": np.full(8, 0.01, np.float32) if ws is None else ws, **changes}
    return graph(CONV.replace("AXIS", axis), **values)


def refusal(model) -> str:
    with pytest.raises(TargetUnsupported) as raised:
        check(model, {}, all_known)
    assert raised.value.exit_code == 4
    return str(raised.value)


def test_symmetric_int8_with_weights_per_channel_of_the_outputs_passes():
    check(conv(), {}, all_known)
    check(conv("", np.float32(0.01)), {}, all_known)


def test_uint8_activations_are_refused_by_name_also_with_zero_point_0():
    said = refusal(conv(z=np.uint8(0)))
    assert said.startswith("tensor 'x': quantized to uint8")
    assert "wrong above 127" in said


def test_a_quantizer_without_a_zero_point_makes_uint8_and_is_refused():
    model = graph("g (float[2] x) => (float[2] y) { q = QuantizeLinear (x, s)\n y = DequantizeLinear (q, s) }", s=S)
    assert refusal(model).startswith("tensor 'x': quantized to uint8")


@pytest.mark.parametrize("zero_point", [1, -128, 127])
def test_a_zero_point_other_than_0_is_refused_with_its_value(zero_point):
    assert f"tensor 'x': its zero point is {zero_point}; only 0" in refusal(conv(z=np.int8(zero_point)))


def test_a_zero_point_of_weights_is_refused_too():
    text = CONV.replace("AXIS (w, ws)", "<axis=0> (w, ws, wz)")
    zeros = np.zeros(8, np.int8)
    values = {"s": S, "z": Z, "w": W, "ws": np.full(8, 0.01, np.float32)}
    check(graph(text, wz=zeros, **values), {}, all_known)
    zeros[5] = 3
    assert "tensor 'w': its zero point is 3" in refusal(graph(text, wz=zeros, **values))


def test_a_computed_zero_point_is_refused():
    text = "g (float[2] x, int8 z) => (float[2] y) { q = QuantizeLinear (x, s, z)\n y = DequantizeLinear (q, s, z) }"
    assert "its zero point is computed" in refusal(graph(text, s=S))


def test_constants_may_be_nodes():
    text = """g (float[2] x) => (float[2] y) {
        z = Constant <value = int8 {7}> ()
        q = QuantizeLinear (x, s, z)
        y = DequantizeLinear (q, s, z)
    }"""
    assert "its zero point is 7" in refusal(graph(text, s=S))


def test_an_int32_bias_is_refused():
    text = CONV.replace("y = Conv (d, f)", "b = DequantizeLinear <axis=0> (bias, bs)\n y = Conv (d, f, b)")
    scale = np.full(8, 0.001, np.float32)
    model = graph(text.replace("AXIS", "<axis=0>"), s=S, z=Z, w=W, ws=scale, bs=scale, bias=np.ones(8, np.int32))
    assert refusal(model).startswith("tensor 'bias': an int32 bias")


def test_uint8_weights_are_refused():
    assert refusal(conv(w=np.ones((8, 16, 3, 3), np.uint8))).startswith("tensor 'w': uint8 weights")


def test_a_convolution_whose_weight_is_per_channel_of_its_inputs_is_refused():
    said = refusal(conv("<axis=1>", np.full(16, 0.01, np.float32)))
    assert "tensor 'w'" in said
    assert "axis 1" in said
    assert "'make_y' would silently run in float" in said
    assert "quantize it on axis 0" in said


def test_a_negative_axis_counts_from_the_end():
    check(conv("<axis=-4>"), {}, all_known)
    assert "axis 1" in refusal(conv("<axis=-3>", np.full(16, 0.01, np.float32)))


@pytest.mark.parametrize(
    ("operator", "wrong", "right"), [("MatMul", 0, 1), ("Gemm", 0, 1), ("Gemm <transB = 1>", 1, 0)]
)
def test_a_matrix_whose_scales_are_not_of_its_outputs_is_refused(operator, wrong, right):
    def product(axis: int):
        text = f"""g (float[2,4] x) => (float[2,4] y) {{
            f = DequantizeLinear <axis={axis}> (w, ws)
            y = {operator} (x, f)
        }}"""
        return graph(text, w=np.ones((4, 4), np.int8), ws=np.full(4, 0.01, np.float32))

    check(product(right), {}, all_known)
    assert f"on axis {right}" in refusal(product(wrong))


def test_a_quantized_transposed_convolution_is_refused():
    text = "g (float[1,8,4,4] x) => (float[1,16,6,6] y) { f = DequantizeLinear (w, ws)\n y = ConvTranspose (x, f) }"
    said = refusal(graph(text, w=W, ws=np.float32(0.01)))
    assert said.startswith("tensor 'w': the quantized ConvTranspose 'make_y' would silently run in float")


@pytest.mark.parametrize("scale", [0.0, -0.1, float("inf"), float("nan")])
def test_a_scale_that_is_not_finite_and_above_0_is_refused(scale):
    assert "tensor 'x': every scale must be finite and above 0" in refusal(conv(s=np.float32(scale)))


def test_one_bad_scale_of_many_channels_is_refused():
    scales = np.full(8, 0.01, np.float32)
    scales[3] = 0
    assert "tensor 'w': every scale" in refusal(conv(ws=scales))


def test_a_computed_scale_is_refused():
    text = "g (float[2] x, float s) => (float[2] y) { q = QuantizeLinear (x, s, z)\n y = DequantizeLinear (q, s, z) }"
    assert "tensor 'x': its scale is computed" in refusal(graph(text, z=Z))


def test_an_unsupported_operator_is_named_with_its_node():
    model = graph("g (float[2] x) => (float[2] y) { a = Relu (x)\n y = Celu (a) }")
    check(model, {}, all_known)
    with pytest.raises(TargetUnsupported, match=r"^node 'make_y': operator Celu isn't supported"):
        check(model, {}, {"Relu"}.__contains__)


def test_an_operator_of_another_domain_is_named_with_its_node():
    text = "g (float[2] x) => (float[2] y) { y = com.someone.Thing (x) }"
    assert refusal(graph(text)).startswith("node 'make_y': com.someone::Thing is not plain ONNX")


def test_operators_inside_a_branch_are_checked():
    text = """g (bool c, float[2] x) => (float[2] y) {
        y = If (c) <
            then_branch = a () => (float[2] p) { p = Celu (x) },
            else_branch = b () => (float[2] r) { r = Relu (x) }
        >
    }"""
    with pytest.raises(TargetUnsupported, match="operator Celu"):
        check(graph(text), {}, {"If", "Relu"}.__contains__)


# --- profiles

DYNAMIC = graph("g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }")
STATIC = graph("g (float[4,3,8,8] x) => (float[4,3,8,8] y) { y = Relu (x) }")


def batches(low: int, opt: int, high: int) -> Profile:
    return Profile(*((size, 3, 8, 8) for size in (low, opt, high)))


def test_a_profile_of_a_dynamic_batch_passes():
    check_profiles(DYNAMIC, {"x": batches(1, 8, 32)})
    check_profiles(STATIC, {})
    check_profiles(STATIC, {"x": batches(4, 4, 4)})


@pytest.mark.parametrize("model", [DYNAMIC, STATIC], ids=["dynamic", "static"])
def test_a_profile_of_an_input_that_the_graph_lacks_is_refused(model):
    with pytest.raises(UsageError, match=r"names input 'image', which the graph doesn't have \(x\)") as raised:
        check_profiles(model, {"x": batches(4, 4, 4), "image": batches(1, 8, 32)})
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("sizes", [(8, 1, 32), (1, 64, 32), (32, 8, 1)])
def test_a_profile_out_of_order_is_refused(sizes):
    with pytest.raises(UsageError, match="input x: a profile needs min <= opt <= max"):
        check_profiles(DYNAMIC, {"x": batches(*sizes)})


def test_a_profile_of_a_static_dimension_must_be_that_dimension():
    with pytest.raises(UsageError, match="input x is 4x3x8x8; the profile's min shape, 1x3x8x8, isn't one"):
        check_profiles(STATIC, {"x": batches(1, 4, 4)})
    wide = Profile((1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 9, 8))
    with pytest.raises(UsageError, match=r"input x is Nx3x8x8; the profile's max shape, 32x3x9x8, isn't one"):
        check_profiles(DYNAMIC, {"x": wide})


def test_a_profile_of_another_rank_is_refused():
    with pytest.raises(UsageError, match="min shape, 1x3"):
        check_profiles(DYNAMIC, {"x": Profile((1, 3), (8, 3), (32, 3))})


def test_a_dynamic_input_without_a_profile_is_refused():
    with pytest.raises(UsageError, match="input x has dynamic dimensions, Nx3x8x8, and no profile"):
        check_profiles(DYNAMIC, {})
