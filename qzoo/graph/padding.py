"""Zeros put around a convolution's input become its own padding: TensorFlow's "same" is uneven on two sides.

Exact: zero is on every symmetric grid, so that padding and quantizing commute. A runtime has no integer kernel for a
Pad between two layers, but every convolution takes four paddings.
"""

from __future__ import annotations

import onnx_ir as ir

from qzoo.graph.edit import DEQUANTIZE, QUANTIZE, constant, data_input


def pad_in_convolutions(graph: ir.Graph) -> None:
    """Move a Pad of zeros over the spatial axes into each Conv that reads it, quantized or not, in place."""
    for node in list(graph):
        if node.op_type != "Conv" or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
            continue
        reader, source = node, data_input(node).producer()
        while source is not None and source.op_type in (QUANTIZE, DEQUANTIZE) and _one_reader(source, graph):
            reader, source = source, data_input(source).producer()
        if source is None or source.op_type != "Pad":
            continue
        pads = _spatial_zeros(source)
        if pads is None or (reader is not node and not _symmetric(reader)):
            continue
        own = node.attributes.get_ints("pads", (0,) * len(pads))
        node.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, pads, strict=True)])
        reader.replace_input_with(0, data_input(source))


def _one_reader(node: ir.Node, graph: ir.Graph) -> bool:
    return len(node.outputs[0].uses()) == 1 and node.outputs[0] not in graph.outputs


def _symmetric(quantize: ir.Node) -> bool:
    zero = constant(quantize.inputs[2]) if len(quantize.inputs) > 2 else None
    return quantize.op_type == QUANTIZE and zero is not None and int(zero) == 0


def _spatial_zeros(pad: ir.Node) -> list[int] | None:
    """The paddings in the order that a Conv has them; None where they are of other axes, negative, or no zeros."""
    amounts = constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
    value = constant(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else None
    computed = len(pad.inputs) > 2 and pad.inputs[2] is not None and value is None
    if (
        amounts is None
        or computed
        or pad.attributes.get_string("mode", "constant") != "constant"
        or len(pad.inputs) > 3
    ):
        return None
    found = [int(amount) for amount in amounts]
    half = len(found) // 2
    if (value is not None and float(value) != 0) or min(found) < 0 or any(found[i] for i in (0, 1, half, half + 1)):
        return None
    return [*found[2:half], *found[half + 2 :]]
