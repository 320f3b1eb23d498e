"""A portable graph without its quantizers, and their ranges beside it: for runtimes that can't read Q/DQ.

TensorRT below 8 quantizes by itself, from the largest magnitude (amax) that each tensor is said to have: set by hand
(`ITensor::setDynamicRange`) or read from a calibration cache. Its int8 scale is amax / 127, as the portable graph's is.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from qzoo.graph.edit import (
    MOVES_DATA,
    add_initializer,
    constant,
    data_input,
    dequantized,
    pairs,
    remove_dead,
    replace_node,
    weight_dequantizers,
)
from qzoo.graph.lower import INT8_WEIGHT_MAX, slim

_SAME_RANGE = {*MOVES_DATA, "Relu", "Identity", "Dropout"}
"""Operators on whose input the output's amax serves: what they don't move unchanged, they cut off."""
_NO_LARGER = {*_SAME_RANGE, "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
"""Operators whose output is nowhere larger than their input."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """Each tensor's amax: `calibrated` where it had a quantizer, else `derived` from a neighbour's.

    `several` has all of a tensor that had quantizers with different ranges; its amax is then the largest.
    """

    calibrated: Mapping[str, float]
    derived: Mapping[str, float]
    several: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def ranges_of(portable: ir.Model) -> Ranges:
    """The ranges in a portable graph. amax = 127 x scale, exact in float64."""
    found: dict[str, set[float]] = {}
    for pair in pairs(portable.graph):
        found.setdefault(str(pair.tensor.name), set()).add(INT8_WEIGHT_MAX * float(pair.scale))
    calibrated = {name: max(own) for name, own in found.items()}
    return Ranges(
        calibrated,
        _derived(without_quantizers(portable), calibrated),
        {name: tuple(sorted(own)) for name, own in found.items() if len(own) > 1},
    )


def without_quantizers(portable: ir.Model) -> ir.Model:
    """The graph in float: pairs dropped, stored weights dequantized. What was quantized keeps its name."""
    model = portable.clone()
    graph = model.graph
    for pair in pairs(graph):
        if pair.output in graph.outputs:
            replace_node(graph, pair.dequantize, ir.node("Identity", [pair.tensor], name=pair.dequantize.name))
        else:
            pair.output.replace_all_uses_with(pair.tensor)
    for node in weight_dequantizers(graph):
        name = f"{data_input(node).name}.float"
        node.outputs[0].replace_all_uses_with(add_initializer(graph, name, dequantized(node)))
    remove_dead(graph)
    return slim(model)


def _derived(model: ir.Model, calibrated: Mapping[str, float]) -> dict[str, float]:
    known = dict(calibrated)
    for node in reversed(model.graph):
        amax = known.get(str(node.outputs[0].name))
        if node.op_type in _SAME_RANGE and amax is not None and constant(data_input(node)) is None:
            known.setdefault(str(data_input(node).name), amax)
    for node in model.graph:
        amax = known.get(str(node.inputs[0].name)) if node.inputs and node.inputs[0] is not None else None
        if node.op_type in _NO_LARGER and amax is not None:
            known.setdefault(str(node.outputs[0].name), amax)
    return {name: amax for name, amax in known.items() if name not in calibrated}


def calibration_cache(ranges: Ranges, version: int) -> str:
    """TensorRT's own text format: a header, and a line per tensor with its scale, a big-endian float32 in hex.

    `version` is 7234 for 7.2.3.4: a cache with another version's header is calibrated anew.
    """
    lines = [f"TRT-{version}-EntropyCalibration2"]
    for name, amax in {**ranges.calibrated, **ranges.derived}.items():
        scale = np.float32(amax / INT8_WEIGHT_MAX)
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"
