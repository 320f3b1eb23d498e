"""A linear layer of more than two axes is exported with its weight transposed by an operator: it is stored transposed.

Exact. onnxruntime's integer MatMul wants the stored integers right behind their DequantizeLinear.
"""

from __future__ import annotations

import onnx_ir as ir

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


def store_transposed(model: ir.Model) -> ir.Model:
    """Replace each Transpose of a stored (O, I) weight that only MatMuls read by the stored (I, O)."""
    graph = model.graph
    for node in list(graph):
        source = data_input(node).producer() if node.op_type == "Transpose" else None
        if source is None or source.op_type != DEQUANTIZE or node.outputs[0] in graph.outputs:
            continue
        stored = constant(source.inputs[0])
        if (
            stored is None
            or stored.ndim != 2
            or not all(user.op_type == "MatMul" for user, _ in node.outputs[0].uses())
        ):
            continue
        if list(node.attributes.get_ints("perm", (1, 0))) != [1, 0]:
            continue
        _replace(graph, node, source)
    return model


def _replace(graph: ir.Graph, node: ir.Node, source: ir.Node) -> None:
    weight = data_input(source)
    turned = required_constant(weight, f"weight of {source.name}").T.copy()
    name = str(weight.name).removesuffix(".int8")
    inputs = [add_initializer(graph, f"{name}.transposed.int8", turned), source.inputs[1]]
    attributes = {"axis": 1} if required_constant(source.inputs[1], f"scale of {source.name}").ndim else {}
    dequantize = ir.node(DEQUANTIZE, inputs, attributes, name=free_name(graph, f"{source.name}.transposed"))
    dequantize.metadata_props.update({key: source.metadata_props[key] for key in (ROLE, MODULE)})
    replace_node(graph, node, dequantize)
