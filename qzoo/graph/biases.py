"""A pass for OpenVINO 2026.4.1, which dequantizes an integer result twice where several nodes read it.

Each reader gets a multiplication of its own, and the kernel takes in two of them (both are named in the runtime model's
`originalLayersNames`), so that the values come out too small by the scale. What adds a bias is computed right.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qzoo.graph.edit import (
    DEQUANTIZE,
    MOVES_DATA,
    add_initializer,
    constant,
    data_input,
    free_name,
    required_constant,
)
from qzoo.graph.lower import Pass

TINY, TINY_HALF = 2.0**-126, 2.0**-24
"""The smallest normal float32, and the smallest float16. A zero would be optimized away."""


def add_biases(least: float) -> Pass:
    """Let every Conv of integer weights that adds nothing add `least`, and so MatMuls of two quantized tensors.

    Of the MatMuls only those that several nodes read, by an Add behind them. Changes values by at most `least`, and
    those not at all where half the spacing of float32 is more: from 2^-101 on for `TINY`.
    """

    def run(model: ir.Model) -> ir.Model:
        graph, tiny = model.graph, np.float32(least)
        for node in list(graph):
            if node.op_type == "Conv" and _adds_nothing(node):
                _add_bias(graph, node, tiny)
            elif node.op_type == "MatMul" and all(map(_is_quantized, node.inputs)) and _readers(graph, node) > 1:
                _add_sum(graph, node, tiny)
        return model

    return run


def _adds_nothing(node: ir.Node) -> bool:
    """Whether a Conv has integer weights and no bias, or one of zeros."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(given)
    return constant(_stored(node)) is not None and (given is None or (bias is not None and not bias.any()))


def _stored(node: ir.Node) -> ir.Value | None:
    """The integers that a Conv's weight is dequantized from."""
    source = data_input(node, 1).producer()
    return source.inputs[0] if source is not None and source.op_type == DEQUANTIZE else None


def _is_quantized(value: ir.Value | None) -> bool:
    """Whether a tensor that is computed is quantized, perhaps moved after that."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in MOVES_DATA:
        node = data_input(node).producer()
    return node is not None and node.op_type == DEQUANTIZE and constant(node.inputs[0]) is None


def _readers(graph: ir.Graph, node: ir.Node) -> int:
    return len(list(node.outputs[0].uses())) + (node.outputs[0] in graph.outputs)


def _add_bias(graph: ir.Graph, node: ir.Node, tiny: np.float32) -> None:
    channels = len(required_constant(_stored(node), f"weight of {node.name}"))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, add_initializer(graph, f"tiny_bias_{channels}", np.full(channels, tiny)))


def _add_sum(graph: ir.Graph, node: ir.Node, tiny: np.float32) -> None:
    product = node.outputs[0]
    added = add_initializer(graph, "tiny", np.asarray(tiny))
    total = ir.node("Add", [product, added], name=free_name(graph, f"{node.name}.sum"))
    total.outputs[0].type, total.outputs[0].shape = product.type, product.shape
    total.outputs[0].name, product.name = product.name, free_name(graph, f"{product.name}.product")
    product.replace_all_uses_with(total.outputs[0], replace_graph_outputs=True)
    total.replace_input_with(0, product)
    graph.insert_after(node, total)
