"""A pass for what an activation leaves just below zero: HardSwish, SiLU and GELU end at -0.375, -0.278 and -0.170.

A signed grid spends half of its steps on values that are never there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qzoo.graph.edit import MOVES_DATA, Pair, data_input, pairs, quantizers_of

LOWEST = {"HardSwish": -0.375, "Swish": -0.27846455, "Gelu": -0.16997121}
"""The least value of each: x (x + 3) / 6 at -1.5; x sigmoid(x) at -1.2784645; x Phi(x) at -0.7517916."""
_KEEPS_BOUND = {*MOVES_DATA, "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"}


def shift_bounded(model: ir.Model) -> ir.Model:
    """int8 pairs on tensors with a known least value b < 0 -> uint8 with a zero point, 256 steps from b to amax.

    Changes values: the step shrinks from amax / 127 to (amax - b) / 255, nearly to half of it where amax is large.
    Pairs of one quantizer, such as those of a concat's branches, keep one scale: all of them change, or none.
    """
    found = [pair for pair in pairs(model.graph) if pair.zero_point.dtype == np.int8]
    for group in _sharing(found):
        bounds = [least(pair.tensor) for pair in group]
        low = min((bound for bound in bounds if bound is not None), default=0.0)
        amax = 127 * float(group[0].scale)
        if None in bounds or not -amax < low < 0:
            continue
        scale = np.float32((amax - low) / 255)
        zero = np.asarray(np.rint(-low / float(scale)), np.uint8)
        for pair in group:
            pair.set_grid(model.graph, scale, zero)
    return model


def least(value: ir.Value) -> float | None:
    """The least value that a tensor can hold, where the operator that made it tells one below zero; else None."""
    node = value.producer()
    if node is None:
        return None
    if node.op_type in _KEEPS_BOUND:
        return least(data_input(node))
    if node.op_type == "Mul" and _gates_itself(node):
        return LOWEST["Swish"]
    bound = LOWEST.get(node.op_type)
    standard = node.op_type != "Swish" or node.attributes.get_float("alpha", 1.0) == 1.0
    return bound if standard else None


def _gates_itself(node: ir.Node) -> bool:
    """Whether a Mul is x * Sigmoid(x), as SiLU is exported."""
    for value, other in (node.inputs, reversed(node.inputs)):
        gate = None if value is None else value.producer()
        if gate is not None and gate.op_type == "Sigmoid" and gate.inputs[0] is other:
            return True
    return False


def _sharing(found: list[Pair]) -> list[list[Pair]]:
    """Pairs by the quantizers that they stand for: those that share one are one group."""
    groups: list[tuple[set[str], list[Pair]]] = []
    for pair in found:
        names, members = quantizers_of(pair), [pair]
        apart = []
        for others, theirs in groups:
            if names & others:
                names, members = names | others, [*theirs, *members]
            else:
                apart.append((others, theirs))
        groups = [*apart, (names, members)]
    return [members for _, members in groups]
