"""Passes for tensors that are quantized twice: what is on one grid of integers isn't rounded to another.

A max-pool whose input has a quantizer, before a convolution whose input has another, gives float values between two
grids to a runtime, which then pools in float.
"""

from __future__ import annotations

import onnx_ir as ir

from qzoo.graph.edit import DEQUANTIZE, MOVES_DATA, QUANTIZE, Pair, insert_pair, pairs, quantizers_of


def carry_grids(model: ir.Model) -> ir.Model:
    """Quantize what only moves or selects values of a quantized tensor once more, on that tensor's own grid.

    Exact: its values are on the grid already. All who read the moved values read them from the new pair.
    """
    for node in list(model.graph):
        if node.op_type not in MOVES_DATA or node.outputs[0] in model.graph.outputs:
            continue
        source = pair_of(node.inputs[0])
        if source is None:
            continue
        users = list(node.outputs[0].uses())
        carried = insert_pair(model.graph, node.outputs[0], source.scale, source.zero_point, like=source)
        for user, index in users:
            user.replace_input_with(index, carried.output)
    return model


def round_once(model: ir.Model) -> ir.Model:
    """Drop a pair on a tensor that a pair has just made: its readers read that tensor.

    Changes values: they lose the second rounding, of at most half its step, and its clamp. Pairs of one quantizer,
    such as those of a concat's branches, keep one scale: all of them go, or none.
    """
    found = list(pairs(model.graph))
    again = [pair for pair in found if pair_of(pair.tensor) is not None and pair.output not in model.graph.outputs]
    staying = {name for pair in found if pair not in again for name in quantizers_of(pair)}
    for pair in again:
        if quantizers_of(pair).isdisjoint(staying):
            pair.output.replace_all_uses_with(pair.tensor)
    return model


def pair_of(value: ir.Value | None) -> Pair | None:
    """The pair whose output a tensor is, if it is one."""
    dequantize = None if value is None else value.producer()
    if dequantize is None or dequantize.op_type != DEQUANTIZE or dequantize.inputs[0] is None:
        return None
    quantize = dequantize.inputs[0].producer()
    return None if quantize is None or quantize.op_type != QUANTIZE else Pair(quantize, dequantize)
