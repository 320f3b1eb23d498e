"""A part of a constant is a constant: a packed weight is quantized once, and each layer reads its own stored integers.

Exact: with one scale per index of an axis, or one for all, DQ(W, s)[i] = DQ(W[i], s[i]).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.graph.edit import (
    DEQUANTIZE,
    INPUT,
    MODULE,
    ROLE,
    add_initializer,
    constant,
    data_input,
    free_name,
    replace_node,
    required_constant,
)


def store_slices(graph: ir.Graph) -> None:
    """Replace each Slice of a stored weight, or of an initializer, by the part itself, in place."""
    for node in list(graph):
        if node.op_type != "Slice" or node.outputs[0] in graph.outputs:
            continue
        source, bounds = data_input(node), [constant(value) for value in node.inputs[1:]]
        if any(bound is None for bound in bounds):
            continue
        whole, dequantize = constant(source), source.producer()
        if whole is not None:
            part = add_initializer(graph, node.outputs[0].name or f"{source.name}.part", whole[_index(whole, bounds)])
            node.outputs[0].replace_all_uses_with(part)
        elif dequantize is not None and dequantize.op_type == DEQUANTIZE:
            stored = constant(dequantize.inputs[0])
            if stored is not None:
                _store(graph, node, dequantize, _index(stored, bounds))


def _index(array: NDArray[np.generic], bounds: list[NDArray[np.generic] | None]) -> tuple[slice, ...]:
    """ONNX's starts, ends, axes and steps (Slice, opset 13) as an index, which clips as they do."""
    starts, ends, *rest = [[int(one) for one in np.ravel(bound)] for bound in bounds]  # type: ignore[arg-type]
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    index = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    return tuple(index)


def _store(graph: ir.Graph, node: ir.Node, source: ir.Node, index: tuple[slice, ...]) -> None:
    weight, scale = data_input(source), data_input(source, 1)
    stored = required_constant(weight, f"weight of {source.name}")
    steps = required_constant(scale, f"scale of {source.name}")
    axis = source.attributes.get_int("axis", -1)
    if steps.ndim:
        scale = add_initializer(graph, f"{scale.name}.part", steps[index[axis]])
    inputs = [add_initializer(graph, f"{weight.name}.part", stored[index]), scale]
    attributes = {"axis": axis} if steps.ndim else {}
    part = ir.node(DEQUANTIZE, inputs, attributes, name=free_name(graph, f"{source.name}.part"))
    part.metadata_props.update({key: source.metadata_props[key] for key in (ROLE, MODULE)})
    for user, place in node.outputs[0].uses():
        user.metadata_props[f"{INPUT}{place}"] = node.metadata_props[f"{INPUT}0"]
    replace_node(graph, node, part)
