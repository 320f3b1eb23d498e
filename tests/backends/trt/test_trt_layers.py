"""What TensorRT planned, read from the log of TensorRT-RTX's builder, or from an inspector's JSON."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
from gpu_stand_in import StandInSdk
from onnx_text import graph

from qzoo.backends.trt.build import inspected
from qzoo.backends.trt.layers import read_inspector, read_layers
from qzoo.backends.trt.reports import layer_info
from qzoo.pipeline.assemble import serialize
from qzoo.records import LayerTable, decode, encode
from qzoo.spec import Recipe

EMPTY = graph("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }")


def residuals_in_float(table: LayerTable) -> int:
    """Layers with an addition that write a float tensor beside, or instead of, an INT8 one: the next skip input."""
    adding = [layer for layer in table.layers if any(node.startswith("node_add") for node in layer.nodes)]
    return sum(any(tensor.dtype == "Float" for tensor in layer.outputs) for layer in adding)


def test_all_convolutions_of_resnet20_are_planned_in_int8(built):
    assert built.layers.coverage("Conv") == (21, 21)
    assert built.layers.coverage("Gemm") == (1, 1)


def test_without_quantizers_of_activations_none_is_in_int8(build):
    table = build(roles=()).layers
    assert table.coverage("Conv") == (0, 21)
    assert {one.dtype for one in table.operators if one.operator == "Conv"} == {"Float"}


def test_with_fp16_the_convolutions_are_int8_and_what_is_float_is_half(build):
    table = build(precision="int8+fp16").layers
    assert (table.coverage("Conv"), table.coverage("Gemm")) == ((21, 21), (1, 1))
    summed = [layer for layer in table.layers if any(node.startswith("node_add") for node in layer.nodes)]
    assert all({tensor.dtype for tensor in layer.constants} >= {"Half"} for layer in summed)


def test_fp16_without_quantizers_of_activations_is_planned_in_half(build):
    table = build(roles=(), precision="int8+fp16").layers
    assert {one.dtype for one in table.operators if one.operator == "Conv"} == {"Half"}


def test_every_convolution_has_a_layer_of_its_own_that_reads_int8_activations_and_weights(built):
    layers = {layer.name: layer for layer in built.layers.layers}
    planned = [one for one in built.layers.operators if one.operator == "Conv"]
    assert len({one.layer for one in planned}) == 21
    for one in planned:
        layer = layers[one.layer]
        assert one.node in layer.nodes
        assert layer.inputs[0].dtype == "Int8"
        weights = [tensor for tensor in layer.constants if sum(dim > 1 for dim in tensor.shape) > 1]
        assert [tensor.dtype for tensor in weights] == ["Int8"]


def test_the_skip_quantizer_keeps_residual_tensors_in_int8(build, built):
    assert residuals_in_float(build(roles=("input", "weight")).layers) == 6
    assert residuals_in_float(built.layers) == 0


def test_input_and_output_are_the_graphs_own(built):
    layers = built.layers.layers
    assert [tensor.shape for layer in layers for tensor in layer.inputs if tensor.name == "input"] == [(-1, 3, 32, 32)]
    assert [tensor.dtype for layer in layers for tensor in layer.outputs if tensor.name == "logits"] == ["Float"]


def test_a_product_whose_kernel_does_not_tell_its_type_counts_as_not_in_int8(rtx, tmp_path):
    text = "g (float[N,16] x) => (float[N,8] y) { f = DequantizeLinear (w, s)\n y = MatMul (x, f) }"
    model = graph(text, w=np.ones((16, 8), np.int8), s=np.float32(0.01))
    config = {"compute_capabilities": "sm89", "batch": "1:4:8"}
    table = rtx.build(serialize(model), config, tmp_path / "engine")
    assert table.coverage("MatMul") == (0, 1)


def test_the_table_round_trips_through_json(built):
    assert decode(encode(built.layers), LayerTable) == built.layers


LINE = (
    "Name: conv_myl0_1, LayerType: correlation, "
    "Inputs: [ { Name: a, Dimensions: [-1,3,8,8], Strides: [192,1,24,3], StrideOrder: [3,0,2,1], Datatype: Int8, "
    "Format: (NHWC) Channel major format }], Constants: [], "
    "Outputs: [ { Name: b, Dimensions: [-1,4,8,8], Strides: [256,1,32,4], StrideOrder: [3,0,2,1], Datatype: Float, "
    "Format: x }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: conv][ONNX Layer: a.quantize][ONNX Layer: conv]"
)


def test_a_layer_is_read_with_its_tensors_and_nodes():
    (layer,) = read_layers(f"Layers:\n{LINE}\n\nI/O Tensors:\n Name: input\n", EMPTY).layers
    assert (layer.name, layer.kind, layer.nodes) == ("conv_myl0_1", "correlation", ("conv", "a.quantize"))
    assert (layer.inputs[0].name, layer.inputs[0].shape, layer.inputs[0].dtype) == ("a", (-1, 3, 8, 8), "Int8")
    assert layer.inputs[0].format == "(NHWC) Channel major format"
    assert [tensor.dtype for tensor in layer.outputs] == ["Float"]


def test_a_line_that_is_no_layer_is_an_error_and_not_left_out():
    with pytest.raises(ValueError, match="not a layer: Nome: x"):
        read_layers(f"Layers:\n{LINE}\nNome: x\n", EMPTY)


# --- the inspector's JSON, which full TensorRT tells its layers by


def test_an_inspectors_layers_are_those_of_the_log(built, rtx, portable):
    recipe = Recipe(target=rtx.name, precision="int8", roles=rtx.roles)
    lowered = rtx.lower(portable, recipe, rtx.target_for("sm89"))
    assert read_inspector(layer_info(built.layers).decode(), lowered) == built.layers


INSPECTED = {
    "Name": "res4_branch2a + res4_branch2a_bn",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {
            "Name": "res3",
            "Dimensions": [16, 512, 28, 28],
            "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format.",
        }
    ],
    "Outputs": [{"Name": "res4", "Dimensions": [16, 256, 28, 28], "Format/Datatype": "Row major linear FP16 format"}],
    "ParameterType": "Convolution",
    "Weights": {"Type": "Int8", "Count": 131072},
    "Bias": {"Type": "Float", "Count": 256},
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
}
"""The example of TensorRT's developer guide, "Engine Inspector", with an output in fp16."""


def convolution() -> ir.Model:
    text = "g (float[16,512,28,28] x) => (float[16,256,28,28] y) { [res4_branch2a] y = Conv (x, w) }"
    return graph(text, w=np.zeros((256, 512, 1, 1), np.float32))


@pytest.mark.parametrize("metadata", [None, "[ONNX Layer: res4_branch2a]\x1e[ONNX Layer: res4_branch2a_bn]"])
def test_a_layer_is_read_as_tensorrt_10_writes_it(metadata):
    layer = INSPECTED if metadata is None else {**INSPECTED, "Metadata": metadata}
    table = read_inspector(json.dumps({"Layers": [layer], "Bindings": ["res3", "res4"]}), convolution())
    (read,) = table.layers
    assert read.nodes == ("res4_branch2a", "res4_branch2a_bn")
    assert [tensor.dtype for tensor in (*read.inputs, *read.constants, *read.outputs)] == ["Int8", "Int8", "Half"]
    assert table.coverage("Conv") == (1, 1)


@pytest.mark.parametrize("text", ["{}", '{"Layers": ["conv1"]}', "[]", "Layers:", ""])
def test_what_is_no_inspectors_json_is_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - also json's own
        read_inspector(text, EMPTY)


def test_an_engine_is_inspected_where_the_log_tells_no_layers():
    inspector = SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": [INSPECTED]}))
    sdk = StandInSdk(SimpleNamespace(create_engine_inspector=lambda: inspector))
    sdk.trt.LayerInformationFormat = SimpleNamespace(JSON=0)
    assert inspected(sdk, b"plan", convolution()).coverage("Conv") == (1, 1)
