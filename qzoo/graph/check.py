"""The invariants of a portable graph and of a lowered one, checked after every pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir

from qzoo.errors import GraphError
from qzoo.graph.edit import MODULE, ROLE, Pair, pairs, required_constant, weight_dequantizers

Check = Callable[[ir.Model], None]


def check_portable(model: ir.Model) -> None:
    """Raise GraphError unless the graph is portable: symmetric int8, every pair annotated, one per tensor and scale."""
    check_lowered(model)
    seen: set[tuple[str | None, bytes]] = set()
    for pair in pairs(model.graph):
        name = pair.quantize.name
        if pair.zero_point.dtype != np.int8 or int(pair.zero_point) != 0:
            raise GraphError(f"{name}: a portable graph has int8 and zero point 0, not {pair.zero_point!r}")
        for node in (pair.quantize, pair.dequantize):
            if not node.metadata_props.get(ROLE) or not node.metadata_props.get(MODULE):
                raise GraphError(f"{node.name}: no {ROLE} or {MODULE} annotation")
        key = (pair.tensor.name, pair.scale.tobytes())
        if key in seen:
            raise GraphError(f"{name}: {pair.tensor.name} has two pairs with the same scale")
        seen.add(key)


def check_lowered(model: ir.Model) -> None:
    """Raise GraphError unless the graph is valid ONNX, every scale is finite and > 0, and every pair is well-formed."""
    names: set[str] = set()
    for node in model.graph:
        if node.name and node.name in names:
            raise GraphError(f"{node.name}: two nodes have this name, which onnxruntime refuses")
        names.add(node.name or "")
        if node.op_type == "BatchNormalization":
            raise GraphError(f"{node.name}: BatchNorm must be folded; declare a fusion for it")
        if node.domain not in ("", "ai.onnx"):
            raise GraphError(f"{node.name}: {node.domain}::{node.op_type} is not plain ONNX")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_scale(node)
    for pair in pairs(model.graph):
        _check_pair(pair)
    for node in weight_dequantizers(model.graph):
        _check_weight(node)
    _check_onnx(model)


def _check_scale(node: ir.Node) -> None:
    scale = required_constant(node.inputs[1], f"scale of {node.name}")
    if not np.isfinite(scale).all() or not (scale > 0).all():  # type: ignore[operator]
        raise GraphError(f"{node.name}: every scale must be finite and > 0, found {np.min(scale)}")


def _check_pair(pair: Pair) -> None:
    for index, what in ((1, "scale"), (2, "zero point")):
        ours, theirs = (
            required_constant(n.inputs[index], f"{what} of {n.name}") for n in (pair.quantize, pair.dequantize)
        )
        # the scale of either side is of that side's float type
        same = what == "scale" or ours.dtype == theirs.dtype
        if not (same and np.array_equal(ours, theirs)):
            raise GraphError(f"{pair.quantize.name}: its DequantizeLinear has another {what}")


def _check_weight(node: ir.Node) -> None:
    stored = required_constant(node.inputs[0], f"weight of {node.name}")
    if stored.min() < -127:
        raise GraphError(f"{node.name}: an int8 weight is -128; weights lie in [-127, 127]")
    axis = node.attributes.get_int("axis", 1)
    if required_constant(node.inputs[1], "scale").ndim:
        for wanted, whose in sorted({_output_channel_axis(user) for user, _ in node.outputs[0].uses()}):
            if axis != wanted:
                raise GraphError(f"{node.name}: weights {whose}are quantized per channel on axis {wanted}, not {axis}")


def _output_channel_axis(user: ir.Node) -> tuple[int, str]:
    # ONNX, operator ConvTranspose: W is (C, M / group, ...), of Conv it is (M, C / group, ...); MatMul: B is (K, N)
    return (1, f"of a {user.op_type} ") if user.op_type in ("ConvTranspose", "MatMul") else (0, "")


def _check_onnx(model: ir.Model) -> None:
    try:
        onnx.checker.check_model(ir.to_proto(model))
    except onnx.checker.ValidationError as error:
        raise GraphError(f"not valid ONNX: {error}") from error
