"""Global pooling in the form that a runtime computes right and fast."""

from __future__ import annotations

import onnx_ir as ir

from qzoo.graph.edit import constant, data_input, replace_node


def pool_maxima(model: ir.Model) -> ir.Model:
    """ReduceMax over height and width, the dimensions kept -> MaxPool with a window of that size. Exact.

    OpenVINO 2026.4.1 computes something else where a QuantizeLinear follows a ReduceMax or a GlobalMaxPool over height
    and width (a tenth of the values' range off, in f32), and is right about a MaxPool.
    """
    for node in list(model.graph):
        window = _window(node)
        if window is not None:
            attributes = {"kernel_shape": window, "strides": (1, 1)}
            replace_node(model.graph, node, ir.node("MaxPool", [data_input(node)], attributes, name=node.name))
    return model


def _window(node: ir.Node) -> tuple[int, int] | None:
    """Height and width of what a node reduces to its maximum, where it is an image of a known size."""
    if node.op_type != "ReduceMax" or node.attributes.get_int("keepdims", 1) != 1:
        return None
    axes, shape = constant(node.inputs[1]) if len(node.inputs) > 1 else None, data_input(node).shape
    if axes is None or shape is None or len(shape) != 4 or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        return None
    height, width = shape[2], shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
