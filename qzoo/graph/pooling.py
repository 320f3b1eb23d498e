"""Global pooling in the form that a runtime computes right and fast."""

from __future__ import annotations

import onnx_ir as ir

from qzoo.graph.edit import constant, data_input, replace_node


def pool_maxima(model: ir.Model) -> ir.Model:
    """ReduceMax over all spatial axes, (N, C, L), (N, C, H, W) or (N, C, D, H, W), kept at size 1 -> MaxPool. Exact.

    OpenVINO 2026.4.1 computes something else where a QuantizeLinear follows a ReduceMax (up to three quarters of the
    values' range off, also in f32), and is right about a MaxPool. Over other axes nothing takes a maximum's place.
    """
    for node in list(model.graph):
        window = _window(node)
        if window is not None:
            attributes = {"kernel_shape": window, "strides": (1,) * len(window)}
            replace_node(model.graph, node, ir.node("MaxPool", [data_input(node)], attributes, name=node.name))
    return model


def _window(node: ir.Node) -> tuple[int, ...] | None:
    """The spatial size of what a node reduces to its maximum, where that is known."""
    if node.op_type != "ReduceMax" or node.attributes.get_int("keepdims", 1) != 1:
        return None
    axes, shape = constant(node.inputs[1]) if len(node.inputs) > 1 else None, data_input(node).shape
    if axes is None or shape is None or not 3 <= len(shape) <= 5:
        return None
    if sorted(int(axis) % len(shape) for axis in axes) != [*range(2, len(shape))]:
        return None
    window = tuple(size for size in shape[2:] if isinstance(size, int))
    return window if len(window) == len(shape) - 2 else None
