"""Exported graph -> portable graph.

The exporter writes one `qzoo::FakeQuantize` node per quantizer. Here each becomes a stored int8 weight or a Q/DQ pair,
annotated with the quantizer it came from; a part of such a weight becomes a stored weight of its own; BatchNorms that
are left are folded, or written as a multiplication and an addition; zeros around a convolution's input become its
padding; pairs on one tensor with one scale become one.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qzoo.errors import GraphError
from qzoo.graph.batchnorm import fold_batchnorms, spread_batchnorms
from qzoo.graph.check import check_portable
from qzoo.graph.edit import (
    DEQUANTIZE,
    INPUT,
    MODULE,
    QUANTIZE,
    ROLE,
    Pair,
    add_initializer,
    constant,
    data_input,
    free_name,
    pairs,
    remove_dead,
    replace_node,
    required_constant,
)
from qzoo.graph.padding import pad_in_convolutions
from qzoo.graph.slices import store_slices

DOMAIN, FAKE_QUANTIZE = "qzoo", "FakeQuantize"


def canonicalize(exported: ir.Model, *, quantized: bool = True) -> ir.Model:
    """The portable graph of an exported one; without quantizers the float network's.

    Raises GraphError if it can't hold the invariants.
    """
    model = exported.clone()
    graph = model.graph
    _strip_metadata(model)
    _global_pooling(graph)
    for node in list(graph):
        if node.domain == DOMAIN and node.op_type == FAKE_QUANTIZE:
            if quantized:
                _expand(graph, node)
            else:
                _bypass(graph, node)
    store_slices(graph)
    fold_batchnorms(graph)
    spread_batchnorms(graph)
    pad_in_convolutions(graph)
    _share_pairs(graph)
    remove_dead(graph)
    model.opset_imports.pop(DOMAIN, None)
    check_portable(model)
    return model


def _strip_metadata(model: ir.Model) -> None:
    # the exporter's metadata holds stack traces: paths of this machine
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _global_pooling(graph: ir.Graph) -> None:
    """ReduceMean over the last two of four axes -> GlobalAveragePool, for which runtimes have INT8 kernels."""
    for node in list(graph):
        if node.op_type != "ReduceMean" or node.attributes.get_int("keepdims", 1) != 1:
            continue
        tensor = data_input(node)
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if axes is None or tensor.shape is None or len(tensor.shape) != 4:
            continue
        if sorted(int(a) % 4 for a in axes.ravel()) != [2, 3]:
            continue
        pool = ir.node("GlobalAveragePool", [tensor], name=node.name)
        replace_node(graph, node, pool)


def _expand(graph: ir.Graph, node: ir.Node) -> None:
    tensor, scale = data_input(node), data_input(node, 1)
    role, path = node.attributes.get_string("role") or "", node.attributes.get_string("path") or ""
    for user, index in node.outputs[0].uses():
        user.metadata_props[f"{INPUT}{index}"] = f"{role}:{path}"
    if role == "weight":
        _store_weight(graph, node, tensor, scale)
        return
    step = required_constant(scale, f"scale of {path}").reshape(())
    zero = add_initializer(graph, "zero_point_int8_0", np.asarray(0, np.int8))
    stepped = add_initializer(graph, f"{path}.scale", step)
    # a module that is called twice has one path and two pairs
    quantize = ir.node(QUANTIZE, [tensor, stepped, zero], name=free_name(graph, f"{path}.quantize"))
    dequantized = free_name(graph, f"{path}.dequantize")
    dequantize = ir.node(DEQUANTIZE, [quantize.outputs[0], stepped, zero], name=dequantized)
    quantize.outputs[0].name = free_name(graph, f"{path}.int8")
    quantize.outputs[0].shape, quantize.outputs[0].type = tensor.shape, ir.TensorType(ir.DataType.INT8)
    for made in (quantize, dequantize):
        made.metadata_props.update({ROLE: role, MODULE: path})
    graph.insert_before(node, quantize)
    replace_node(graph, node, dequantize)
    _rename(graph, dequantize, f"{path}.output")


def _bypass(graph: ir.Graph, node: ir.Node) -> None:
    output, tensor = node.outputs[0], data_input(node)
    if output in graph.outputs:
        replace_node(graph, node, ir.node("Identity", [tensor], name=node.name))  # so that it keeps its name
    else:
        output.replace_all_uses_with(tensor)


def _rename(graph: ir.Graph, node: ir.Node, name: str) -> None:
    if node.outputs[0] not in graph.outputs:
        node.outputs[0].name = free_name(graph, name)


def _store_weight(graph: ir.Graph, node: ir.Node, tensor: ir.Value, scale: ir.Value) -> None:
    path = node.attributes.get_string("path") or ""
    weight, step = required_constant(tensor, f"weight of {path}"), required_constant(scale, f"scale of {path}")
    axis = node.attributes.get_int("axis", -1)
    shaped = step if axis < 0 else step.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    low, high = node.attributes.get_int("low", -127), node.attributes.get_int("high", 127)
    stored = np.clip(np.rint(weight / shaped), low, high).astype(np.int8)  # type: ignore[operator]
    value = add_initializer(graph, f"{tensor.name}.int8", stored)
    step = step if axis >= 0 else step.reshape(())
    inputs = [value, add_initializer(graph, f"{tensor.name}.scale", step)]
    attributes = {"axis": axis} if axis >= 0 else {}
    dequantize = ir.node(DEQUANTIZE, inputs, attributes, name=free_name(graph, f"{path}.dequantize"))
    dequantize.metadata_props.update({ROLE: "weight", MODULE: path})
    replace_node(graph, node, dequantize)
    _rename(graph, dequantize, f"{path}.output")


def _share_pairs(graph: ir.Graph) -> None:
    kept: dict[tuple[ir.Value, tuple[bytes, str, bytes]], Pair] = {}
    for pair in pairs(graph):
        first = kept.setdefault((pair.tensor, pair.grid()), pair)
        if first is pair:
            continue
        for key in (ROLE, MODULE):
            names = {*first.quantize.metadata_props[key].split(","), *pair.quantize.metadata_props[key].split(",")}
            for node in (first.quantize, first.dequantize):
                node.metadata_props[key] = ",".join(sorted(names))
        if pair.output in graph.outputs:
            raise GraphError(f"{pair.dequantize.name}: a graph output is a second pair on one tensor")
        pair.output.replace_all_uses_with(first.output)
