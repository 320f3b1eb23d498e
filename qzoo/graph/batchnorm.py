"""Folds a BatchNormalization into the layer before it, without touching the layer's stored integers.

A network that was trained with fake quantization keeps its BatchNorms: its weights are quantized before them. With
f = gamma / sqrt(var + epsilon) per output channel, y = f (s_w q_w * x + b - mean) + beta is the same layer with weight
scale s_w |f|, weights q_w sign(f) and bias f (b - mean) + beta: no weight is rounded again. That is why weights lie in
[-127, 127] (Jacob et al. 2018, arXiv:1712.05877, section 3.2 folds before quantizing, and so needs to simulate it).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.graph.edit import (
    DEQUANTIZE,
    MODULE,
    ROLE,
    add_initializer,
    constant,
    data_input,
    free_name,
    replace_node,
    required_constant,
)

N = TypeVar("N", np.float64, np.int8)

SMALLEST_STEP = 2.0**-100
"""Where a channel's factor is 0 or so small that its scale would be no normal float32: its weights become 0."""

_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
"""Of the weight's axes, the one of the output channels."""


def fold_batchnorms(graph: ir.Graph) -> None:
    """Fold every BatchNormalization that follows a convolution or Gemm of constant or stored int8 weights, in place.

    Others stay.
    """
    for node in list(graph):
        if node.op_type == "BatchNormalization":
            _fold(graph, node)


def spread_batchnorms(graph: ir.Graph) -> None:
    """Write every BatchNormalization that is left as a multiplication and an addition of constants, in place.

    It has no layer of its own before it: a pre-activation block's reads a residual add, or several layers read one.
    """
    for node in list(graph):
        if node.op_type == "BatchNormalization":
            _spread(graph, node)


def _spread(graph: ir.Graph, norm: ir.Node) -> None:
    tensor, normalized = data_input(norm), norm.outputs[0]
    known = tensor.shape or normalized.shape
    if known is None:
        return  # the invariants refuse it
    factor, beta, mean = _factor(norm)
    shape = (-1, *(1,) * (len(known) - 2))
    scale = add_initializer(graph, f"{norm.name}.scale", factor.astype(np.float32).reshape(shape))
    shift = add_initializer(graph, f"{norm.name}.shift", (beta - factor * mean).astype(np.float32).reshape(shape))
    scaled = ir.node("Mul", [tensor, scale], name=free_name(graph, f"{norm.name}.mul"))
    scaled.outputs[0].name = free_name(graph, f"{normalized.name}.scaled")
    scaled.outputs[0].type, scaled.outputs[0].shape = normalized.type, normalized.shape
    graph.insert_before(norm, scaled)
    replace_node(graph, norm, ir.node("Add", [scaled.outputs[0], shift], name=norm.name))


def _factor(norm: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """gamma / sqrt(var + epsilon), beta and the mean, per channel."""
    parameters = [required_constant(data_input(norm, index), f"input {index} of {norm.name}") for index in range(1, 5)]
    gamma, beta, mean, variance = (value.astype(np.float64) for value in parameters)
    return gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5)), beta, mean


def _fold(graph: ir.Graph, norm: ir.Node) -> None:
    layer = data_input(norm).producer()
    if layer is None or not _foldable(layer, graph):
        return
    factor, beta, mean = _factor(norm)
    bias = constant(layer.inputs[2]) if len(layer.inputs) > 2 and layer.inputs[2] is not None else None
    start = np.zeros_like(mean) if bias is None else bias.astype(np.float64)
    folded = (factor * (start - mean) + beta).astype(np.float32)
    _scale_weight(graph, layer, factor)
    bias_value = add_initializer(graph, f"{layer.name}.bias", folded)
    if len(layer.inputs) < 3:
        layer.resize_inputs(3)
    layer.replace_input_with(2, bias_value)
    output, normalized = layer.outputs[0], norm.outputs[0]
    output.type, output.shape = normalized.type, normalized.shape
    if normalized in graph.outputs:
        output.name, normalized.name = normalized.name, free_name(graph, f"{normalized.name}.unused")
    normalized.replace_all_uses_with(output, replace_graph_outputs=True)
    graph.remove(norm, safe=True)


def _foldable(layer: ir.Node, graph: ir.Graph) -> bool:
    if layer.op_type not in _OUTPUT_AXIS or layer.outputs[0] in graph.outputs or len(layer.outputs[0].uses()) != 1:
        return False
    if layer.op_type == "ConvTranspose" and layer.attributes.get_int("group", 1) != 1:
        return False
    if layer.op_type == "Gemm" and not (
        layer.attributes.get_int("transB", 0) == 1
        and layer.attributes.get_float("alpha", 1.0) == layer.attributes.get_float("beta", 1.0) == 1.0
    ):
        return False
    if len(layer.inputs) > 2 and layer.inputs[2] is not None and constant(layer.inputs[2]) is None:
        return False
    weight = data_input(layer, 1)
    return constant(weight) is not None or _stored(weight) is not None


def _stored(weight: ir.Value) -> ir.Node | None:
    """The DequantizeLinear of a stored weight."""
    node = weight.producer()
    return node if node is not None and node.op_type == DEQUANTIZE and constant(node.inputs[0]) is not None else None


def _scale_weight(graph: ir.Graph, layer: ir.Node, factor: NDArray[np.float64]) -> None:
    axis, weight = _OUTPUT_AXIS[layer.op_type], data_input(layer, 1)
    node = _stored(weight)
    if node is None:
        plain = required_constant(weight, f"weight of {layer.name}").astype(np.float64)
        scaled = (plain * _along(factor, axis, plain.ndim)).astype(np.float32)
        layer.replace_input_with(1, add_initializer(graph, f"{layer.name}.weight", scaled))
        return
    stored = required_constant(node.inputs[0], f"weight of {layer.name}")
    scale = required_constant(node.inputs[1], f"scale of {node.name}").astype(np.float64)
    steps = np.abs(factor) * scale
    vanished = steps < SMALLEST_STEP
    signs = np.where(vanished, 0, np.where(factor < 0, -1, 1)).astype(np.int8)
    stored = stored.astype(np.int8) * _along(signs, axis, stored.ndim)
    steps = np.where(vanished, SMALLEST_STEP, steps).astype(np.float32)
    name = str(data_input(node).name).removesuffix(".int8")
    inputs = [add_initializer(graph, f"{name}.int8", stored), add_initializer(graph, f"{name}.scale", steps)]
    dequantize = ir.node(DEQUANTIZE, inputs, {"axis": axis}, name=free_name(graph, str(node.name)))
    dequantize.metadata_props.update({key: node.metadata_props[key] for key in (ROLE, MODULE)})
    dequantize.outputs[0].name = free_name(graph, str(weight.name))
    dequantize.outputs[0].type, dequantize.outputs[0].shape = weight.type, weight.shape
    graph.insert_before(layer, dequantize)
    layer.replace_input_with(1, dequantize.outputs[0])


def _along(values: NDArray[N], axis: int, ndim: int) -> NDArray[N]:
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])
