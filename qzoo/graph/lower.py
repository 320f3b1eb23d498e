"""Passes from the portable graph to the form that one runtime turns into INT8 kernels.

Each takes a model and returns a new one; a backend's `lower` is a list of them, run by `run_passes`. What each may
change in the graph's values is stated with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.graph.check import check_lowered
from qzoo.graph.edit import (
    DEQUANTIZE,
    INPUT,
    MODULE,
    MOVES_DATA,
    QUANTIZE,
    Pair,
    add_initializer,
    constant,
    data_input,
    free_name,
    insert_pair,
    pairs,
    quantizers_of,
    remove_dead,
    replace_node,
    required_constant,
    roles_of,
    weight_dequantizers,
)

Pass = Callable[[ir.Model], ir.Model]

_NON_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs"}
_KEEPS_SIGN = {*MOVES_DATA, "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity", "Dropout"}
_COMBINES_SIGN = {"Add", "Mul", "Max", "Concat"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def run_passes(model: ir.Model, passes: Iterable[Pass]) -> ir.Model:
    """Run passes in order on a copy; the invariants of a lowered graph are checked after each. Raises GraphError."""
    for run in passes:
        model = run(model.clone())
        remove_dead(model.graph)
        check_lowered(model)
    return model


def slim(model: ir.Model) -> ir.Model:
    """Drop what only passes need: the shapes of intermediate values, the module and role each input came by. Exact.

    Names and "qzoo.role" stay: what a runtime did to a layer can still be traced back to it.
    """
    for node in model.graph:
        for key in [key for key in node.metadata_props if key == MODULE or key.startswith(INPUT)]:
            del node.metadata_props[key]
        for value in node.outputs:
            if value not in model.graph.outputs:
                value.shape = value.type = None
    return model


def keep_roles(roles: Iterable[str]) -> Pass:
    """Drop the quantizers of every other role: their consumers read the unquantized tensor. Weights stay stored."""
    kept = {*roles, "weight"}

    def run(model: ir.Model) -> ir.Model:
        for pair in pairs(model.graph):
            for user, index in list(pair.output.uses()):
                if roles_of(user).get(index, "input") not in kept:
                    user.replace_input_with(index, pair.tensor)
                    user.metadata_props.pop(f"{INPUT}{index}", None)
        return model

    return run


def quantize_before_moves(model: ir.Model) -> ir.Model:
    """Quantize also in front of what only moves or selects values (max-pooling, reshapes), so that it runs on INT8.

    Exact: rounding to a grid is monotone, hence commutes with a maximum, and a value on the grid is not moved again.
    Where somebody reads the moved values in another form, unquantized or on another grid, they stay as they are.
    """
    for pair in reversed(list(pairs(model.graph))):
        _quantize_source(model.graph, pair)
    model.graph.sort()  # a pair that was there already may come after the move
    return model


def _quantize_source(graph: ir.Graph, pair: Pair) -> None:
    move = pair.tensor.producer()
    if move is None or move.op_type not in MOVES_DATA or not _read_on_one_grid(graph, pair):
        return
    source = data_input(move)
    producer = source.producer()
    if producer is not None and producer.op_type == DEQUANTIZE:
        return
    present = [other for other in _pairs_on(source) if other.grid() == pair.grid()]
    before = present[0] if present else insert_pair(graph, source, pair.scale, pair.zero_point, like=pair)
    move.replace_input_with(0, before.output)
    _quantize_source(graph, before)


def _read_on_one_grid(graph: ir.Graph, pair: Pair) -> bool:
    readers = _pairs_on(pair.tensor)
    only_quantized = len(readers) == len(list(pair.tensor.uses())) and pair.tensor not in graph.outputs
    return only_quantized and all(reader.grid() == pair.grid() for reader in readers)


def _pairs_on(tensor: ir.Value) -> list[Pair]:
    quantizes = [user for user, index in tensor.uses() if user.op_type == QUANTIZE and index == 0]
    return [Pair(node, next(iter(node.outputs[0].uses()))[0]) for node in quantizes]


def non_negative(value: ir.Value, seen: dict[ir.Value, bool] | None = None) -> bool:
    """Whether a tensor can be shown to hold no negative value, from the operators that made it."""
    seen = {} if seen is None else seen
    if value not in seen:
        seen[value] = _non_negative(value, seen)
    return seen[value]


def _non_negative(value: ir.Value, seen: dict[ir.Value, bool]) -> bool:
    node = value.producer()
    if node is None:
        array = constant(value)
        return array is not None and bool(np.all(np.greater_equal(array, 0)))
    if node.op_type in _NON_NEGATIVE:
        return True
    if node.op_type == "Clip":
        low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and float(low) >= 0
    if node.op_type in {*_KEEPS_SIGN, QUANTIZE, DEQUANTIZE} or _interpolates(node):
        return non_negative(data_input(node), seen)
    if node.op_type in _COMBINES_SIGN:
        return all(operand is not None and non_negative(operand, seen) for operand in node.inputs)
    return False


def _interpolates(node: ir.Node) -> bool:
    # cubic interpolation overshoots
    return node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") != "cubic"


def unsigned_non_negative(model: ir.Model) -> ir.Model:
    """int8 pairs on tensors that hold no negative value -> uint8, zero point 0, with 255 steps for the same amax.

    Changes values: the step shrinks to 127/255, so the rounding error halves; [0, amax] stays what is represented.
    Pairs of one quantizer, such as those of a concat's branches, keep one scale: all of them change, or none.
    """
    seen: dict[ir.Value, bool] = {}
    found = [pair for pair in pairs(model.graph) if pair.zero_point.dtype == np.int8]
    signed = _signed_quantizers(found, seen)
    for pair in found:
        if non_negative(pair.tensor, seen) and quantizers_of(pair).isdisjoint(signed):
            pair.set_grid(model.graph, np.float32(pair.scale * np.float32(127 / 255)), np.asarray(0, np.uint8))
    return model


def _signed_quantizers(found: list[Pair], seen: dict[ir.Value, bool]) -> set[str]:
    """Those with a pair on a tensor that may hold a negative value, and all that share a pair with one of them."""
    signed = {name for pair in found if not non_negative(pair.tensor, seen) for name in quantizers_of(pair)}
    grown: set[str] = set()
    while signed != grown:
        grown = set(signed)
        signed.update(*(quantizers_of(pair) for pair in found if not quantizers_of(pair).isdisjoint(grown)))
    return signed


def offset_signed(model: ir.Model) -> ir.Model:
    """int8 pairs with zero point 0 -> uint8 with zero point 128. Exact: the same steps under other names."""
    for pair in pairs(model.graph):
        if pair.zero_point.dtype == np.int8:
            pair.set_grid(model.graph, pair.scale, np.asarray(128, np.uint8))
    return model


def absorb_clamps(model: ir.Model) -> ir.Model:
    """Drop a Relu or Clip that is read only by quantizers that clamp as much. Exact: they make the same integers.

    The lower bound must quantize to the grid's smallest integer and the upper bound to its largest: rounding is
    monotone, so what lies beyond a bound makes that integer with or without the clamp.
    """
    for node in list(model.graph):
        bounds = _clamp(node)
        if bounds is None or node.outputs[0] in model.graph.outputs:
            continue
        uses = list(node.outputs[0].uses())
        if uses and all(index == 0 and _clamps(user, *bounds) for user, index in uses):
            node.outputs[0].replace_all_uses_with(data_input(node))
    return model


def _clamp(node: ir.Node) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    bounds = [-np.inf, np.inf]
    for index, given in enumerate(node.inputs[1:]):
        bound = constant(given)
        if bound is not None:
            bounds[index] = float(bound)
        elif given is not None:
            return None  # computed: unknown here
    return bounds[0], bounds[1]


def _clamps(node: ir.Node, low: float, high: float) -> bool:
    if node.op_type != QUANTIZE or len(node.inputs) < 3:
        return False
    zero_point, scale = constant(node.inputs[2]), constant(node.inputs[1])
    if zero_point is None or scale is None or scale.ndim:
        return False
    integers, step, zero = np.iinfo(zero_point.dtype), np.float32(scale), int(zero_point)  # type: ignore[type-var]
    lowest, highest = (float(np.rint(np.float32(bound) / step)) + zero for bound in (low, high))
    return lowest <= integers.min and highest >= integers.max


def narrow_weights(limit: int) -> Pass:
    """Restore int8 weights to [-limit, limit] with larger steps, for CPUs whose 8-bit products saturate.

    Changes values: at limit 63 the weights' rounding error doubles. limit 127 changes nothing, nor does any limit
    change weights that keep to it already.
    """

    def run(model: ir.Model) -> ir.Model:
        if limit < INT8_WEIGHT_MAX:
            for node in weight_dequantizers(model.graph):
                if np.abs(required_constant(node.inputs[0], f"weight of {node.name}").astype(np.int16)).max() <= limit:
                    continue
                scale = required_constant(node.inputs[1], f"scale of {node.name}")
                _rescale(model.graph, node, (scale * np.float32(INT8_WEIGHT_MAX / limit)).astype(np.float32), limit)  # type: ignore[operator]
        return model

    return run


INT8_WEIGHT_MAX = 127
SMALLEST_STEP = 2.0**-100
BIAS_BITS = 30
"""onnxruntime stores a bias as int32 in units of input scale x weight scale, and saturates silently beyond 2^31."""


def floor_weight_scales(model: ir.Model) -> ir.Model:
    """Raise a channel's weight scale to |bias| / (input scale * 2^30) where it is smaller, and round its weights anew.

    Changes values only of channels whose weights are so small against their bias that the bias would saturate in
    onnxruntime's int32 (facts: near-dead channels); there by at most half the raised step per weight.
    """
    for node in weight_dequantizers(model.graph):
        scale = required_constant(node.inputs[1], f"scale of {node.name}").astype(np.float64)
        floors = [floor for user, _ in node.outputs[0].uses() if (floor := _scale_floor(user)) is not None]
        for floor in floors:
            raised = np.maximum(scale, floor if scale.ndim else floor.max())
            if (raised > scale).any():
                _rescale(model.graph, node, raised.astype(np.float32), INT8_WEIGHT_MAX)
                scale = raised
    return model


def _scale_floor(user: ir.Node) -> NDArray[np.float64] | None:
    step = _input_step(user)
    if step is None:
        return None
    bias = constant(user.inputs[2]) if len(user.inputs) > 2 else None
    normal = np.asarray(SMALLEST_STEP / step)  # below it, input scale x weight scale is no normal float32
    if bias is None:
        return normal
    largest = np.abs(bias.astype(np.float64))
    if user.op_type == "ConvTranspose":  # its weight is (C, M / group, ...): a scale serves one channel of every group
        largest = largest.reshape(user.attributes.get_int("group", 1), -1).max(0)
    floor: NDArray[np.float64] = np.maximum(largest / (step * 2.0**BIAS_BITS), normal)
    return floor


def _input_step(user: ir.Node) -> float | None:
    source = data_input(user).producer() if user.op_type in _WEIGHTED else None
    if source is None or source.op_type != DEQUANTIZE:
        return None
    return float(required_constant(source.inputs[1], f"scale of {source.name}"))


def quantize_biases(model: ir.Model) -> ir.Model:
    """Store each bias as int32 in units of input scale x weight scale, the accumulator's, behind a DequantizeLinear.

    Changes values by at most half such a unit, the rounding that the integer kernels of onnxruntime make anyway; its
    Gemm runs on INT8 only with a bias in this form (and `spell_out_zero_points`). Needs `floor_weight_scales` first.
    """
    for node in list(model.graph):
        if node.op_type not in {"Conv", "Gemm"} or len(node.inputs) < 3:
            continue
        step, bias, weight = _input_step(node), constant(node.inputs[2]), data_input(node, 1).producer()
        if step is None or bias is None or weight is None or weight.op_type != DEQUANTIZE:
            continue
        if weight.attributes.get_int("axis", 0) != 0 or node.attributes.get_float("beta", 1.0) != 1.0:
            continue
        unit = (np.float32(step) * required_constant(weight.inputs[1], "weight scale")).astype(np.float32)  # type: ignore[operator]
        node.replace_input_with(2, _stored_bias(model.graph, node, bias, np.asarray(unit)))
    return model


def spell_out_zero_points(model: ir.Model) -> ir.Model:
    """Give the stored weight and bias of every Gemm with a quantized input a zero point of 0 as an input. Exact.

    onnxruntime's INT8 Gemm is chosen only where these are inputs, not left out.
    """
    for node in list(model.graph):
        if node.op_type == "Gemm" and _input_step(node) is not None:
            for stored in node.inputs[1:]:
                _spell_out_zero_point(model.graph, stored)
    return model


def _stored_bias(graph: ir.Graph, node: ir.Node, bias: NDArray[np.generic], unit: NDArray[np.float32]) -> ir.Value:
    stored = np.rint(bias.astype(np.float64) / unit.astype(np.float64)).astype(np.int32)
    name = str(data_input(node, 2).name)
    inputs = [add_initializer(graph, f"{name}.int32", stored), add_initializer(graph, f"{name}.scale", unit)]
    attributes = {"axis": 0} if unit.ndim else {}
    # two layers may share one bias
    dequantize = ir.node(DEQUANTIZE, inputs, attributes, name=free_name(graph, f"{name}.dequantize"))
    dequantize.outputs[0].name = free_name(graph, f"{name}.output")
    graph.insert_before(node, dequantize)
    return dequantize.outputs[0]


def _spell_out_zero_point(graph: ir.Graph, value: ir.Value | None) -> None:
    dequantize = None if value is None else value.producer()
    if dequantize is None or dequantize.op_type != DEQUANTIZE or len(dequantize.inputs) > 2:
        return
    stored = required_constant(dequantize.inputs[0], f"weight of {dequantize.name}")
    scale = required_constant(dequantize.inputs[1], f"scale of {dequantize.name}")
    zero = add_initializer(graph, f"{data_input(dequantize).name}.zero_point", np.zeros(scale.shape, stored.dtype))
    attributes = {"axis": 0} if scale.ndim else {}
    spelled = ir.node(DEQUANTIZE, [*dequantize.inputs[:2], zero], attributes, name=dequantize.name)
    spelled.metadata_props.update(dequantize.metadata_props)
    replace_node(graph, dequantize, spelled)


def _rescale(graph: ir.Graph, node: ir.Node, scale: NDArray[np.float32], limit: int) -> None:
    stored = required_constant(node.inputs[0], f"weight of {node.name}")
    old = required_constant(node.inputs[1], f"scale of {node.name}")
    axis = node.attributes.get_int("axis", 0)
    shape = [-1 if i == axis else 1 for i in range(stored.ndim)] if scale.ndim else []
    real = stored.astype(np.float64) * old.astype(np.float64).reshape(shape if old.ndim else [])
    weights = np.clip(np.rint(real / scale.reshape(shape)), -limit, limit).astype(np.int8)
    node.replace_input_with(0, add_initializer(graph, str(data_input(node).name), weights))
    node.replace_input_with(1, add_initializer(graph, str(data_input(node, 1).name), scale))
