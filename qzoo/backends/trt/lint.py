"""What TensorRT would refuse with words that don't help, or accept and build wrong: found in the graph beforehand.

Pure ONNX: needs no SDK. Each rule was seen to be needed; the reason is in its message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.errors import TargetUnsupported, UsageError
from qzoo.graph.edit import DEQUANTIZE, QUANTIZE


@dataclass(frozen=True, slots=True)
class Profile:
    """The shapes of one input that an engine accepts (min to max), and the one it is tuned for."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


def check(model: ir.Model, profiles: Mapping[str, Profile], supports: Callable[[str], bool]) -> None:
    """Raise TargetUnsupported, or UsageError for a profile, for the first thing that the target can't do right.

    `supports` tells whether it knows an operator of the standard domain.
    """
    check_profiles(model, profiles)
    for node in model.graph.all_nodes():
        _check_operator(node, supports)
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            _check_scale(node)
            _check_zero_point(node)
            _check_type(node)
        _check_weight_axis(node)


def check_profiles(model: ir.Model, profiles: Mapping[str, Profile]) -> None:
    """Raise UsageError unless every profile is of an input and fits it, and every dynamic input has one."""
    inputs = {str(value.name): value for value in model.graph.inputs}
    for name in profiles:
        if name not in inputs:
            raise UsageError(
                f"the profile names input {name!r}, which the graph doesn't have ({', '.join(inputs)}); it would be "
                "ignored silently"
            )
    for name, value in inputs.items():
        shape = value.shape
        if shape is None:
            raise UsageError(f"input {name} has no shape; give the graph one")
        dims = tuple(dim if isinstance(dim, int) else None for dim in shape)
        if name in profiles:
            _check_profile(name, dims, profiles[name])
        elif None in dims:
            raise UsageError(f"input {name} has dynamic dimensions, {_shown(dims)}, and no profile; give it one")


def _check_profile(name: str, dims: tuple[int | None, ...], profile: Profile) -> None:
    for which, shape in (("min", profile.min), ("opt", profile.opt), ("max", profile.max)):
        fits = len(shape) == len(dims) and all(own in (None, dim) for own, dim in zip(dims, shape, strict=True))
        if not fits:
            raise UsageError(f"input {name} is {_shown(dims)}; the profile's {which} shape, {_shown(shape)}, isn't one")
    for low, opt, high in zip(profile.min, profile.opt, profile.max, strict=True):
        if not 0 <= low <= opt <= high:
            raise UsageError(
                f"input {name}: a profile needs min <= opt <= max, got {_shown(profile.min)}, {_shown(profile.opt)}, "
                f"{_shown(profile.max)}"
            )


def _shown(dims: tuple[int | None, ...]) -> str:
    return "x".join("N" if dim is None else str(dim) for dim in dims)


def _check_operator(node: ir.Node, supports: Callable[[str], bool]) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise TargetUnsupported(
            f"node {_name(node)}: {node.domain}::{node.op_type} is not plain ONNX, and no plugin for it is loaded"
        )
    if not supports(node.op_type):
        raise TargetUnsupported(f"node {_name(node)}: operator {node.op_type} isn't supported; use others in its place")


def _check_scale(node: ir.Node) -> None:
    scale = _constant(_input(node, 1))
    if scale is None:
        raise TargetUnsupported(f"tensor {_tensor(node)}: its scale is computed; only a constant one is supported")
    if not (np.isfinite(scale).all() and np.greater(scale, 0).all()):
        raise TargetUnsupported(f"tensor {_tensor(node)}: every scale must be finite and above 0, found {scale.min()}")


def _check_type(node: ir.Node) -> None:
    if node.op_type == QUANTIZE:
        if _quantized_type(node) == ir.DataType.UINT8:
            raise TargetUnsupported(
                f"tensor {_tensor(node)}: quantized to uint8, which would be built as int8 and be wrong above 127; "
                "quantize it to int8 with zero point 0"
            )
        return
    stored = _constant(_input(node, 0))
    if stored is not None and stored.dtype == np.int32:
        raise TargetUnsupported(f"tensor {_tensor(node)}: an int32 bias isn't taken; leave the bias in float")
    if stored is not None and stored.dtype == np.uint8:
        raise TargetUnsupported(f"tensor {_tensor(node)}: uint8 weights aren't taken; quantize them to int8")


def _quantized_type(node: ir.Node) -> ir.DataType:
    zero_point = _constant(_input(node, 2))
    if zero_point is not None:
        return ir.DataType.from_numpy(zero_point.dtype)
    # ONNX, operator QuantizeLinear: uint8 unless output_dtype says otherwise
    return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)


def _check_zero_point(node: ir.Node) -> None:
    value = _input(node, 2)
    if value is None:
        return
    zero_point = _constant(value)
    if zero_point is None:
        raise TargetUnsupported(f"tensor {_tensor(node)}: its zero point is computed; only a constant 0 is supported")
    if zero_point.any():
        raise TargetUnsupported(
            f"tensor {_tensor(node)}: its zero point is {zero_point.flat[np.flatnonzero(zero_point)[0]]}; only 0 is "
            "supported, quantize symmetrically"
        )


def _check_weight_axis(node: ir.Node) -> None:
    weight = _input(node, 1)
    dequantize = None if weight is None else weight.producer()
    if dequantize is None or dequantize.op_type != DEQUANTIZE or _constant(_input(dequantize, 0)) is None:
        return
    if node.op_type == "ConvTranspose":
        raise TargetUnsupported(
            f"tensor {_tensor(dequantize)}: the quantized ConvTranspose {_name(node)} would silently run in float; "
            "leave its weight in float"
        )
    scale, stored = _constant(_input(dequantize, 1)), _constant(_input(dequantize, 0))
    if scale is None or stored is None or scale.ndim == 0:
        return
    axis, wanted = dequantize.attributes.get_int("axis", 1) % stored.ndim, _output_axis(node, stored.ndim)
    if wanted is not None and axis != wanted:
        raise TargetUnsupported(
            f"tensor {_tensor(dequantize)}: quantized per channel on axis {axis}, with which the {node.op_type} "
            f"{_name(node)} would silently run in float; quantize it on axis {wanted}, that of its outputs"
        )


def _output_axis(node: ir.Node, ndim: int) -> int | None:
    """The axis of a weight that is its operator's output channels; None for operators without one."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return ndim - 1 if node.op_type == "MatMul" else None


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of an initializer or of a Constant node; None for anything else."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or "value" not in producer.attributes:
        return None
    return producer.attributes["value"].as_tensor().numpy()


def _tensor(node: ir.Node) -> str:
    value = _input(node, 0)
    return repr("" if value is None else value.name)


def _name(node: ir.Node) -> str:
    return repr(node.name or node.outputs[0].name)
