"""Float operators -> fp16, by types in the graph, as strongly typed runtimes take them.

An operator computes in fp16 where that is safe: it is one of HALF, its constants fit, and none of its inputs may hold
values that fp16 can't. fp16 ends at 65504 and has 11 significant bits down to 2^-14 (IEEE 754-2019, binary16), so what
squares, sums or exponentiates stays in fp32, and so does all that is computed from it until an operator bounds it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from qzoo.errors import GraphError
from qzoo.graph.edit import DEQUANTIZE, QUANTIZE, add_initializer, constant, data_input, free_name, required_constant

LARGEST, SMALLEST_NORMAL = 65504.0, 2.0**-14
"""Of binary16: the largest finite value, and the smallest that has all 11 bits."""

LEAST_OPSET, QDQ_OPSET = 18, 19
"""QuantizeLinear and DequantizeLinear take fp16 from opset 19 on, which changed no operator of 18 otherwise."""

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "MaxPool", "GlobalMaxPool"}
_ACTIVATIONS = {
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Elu",
    "Selu",
    "Gelu",
    "Erf",
    "HardSwish",
    "HardSigmoid",
    "Sigmoid",
    "Tanh",
}
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Where", "Clip", "Identity", "Dropout"}
_SHAPES = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Pad", "Resize"}
_PARTS = {"Concat", "Split", "Slice", "Gather", "GatherElements", "DepthToSpace", "SpaceToDepth"}
HALF = frozenset(_LAYERS | _ACTIVATIONS | _ELEMENTWISE | _SHAPES | _PARTS)
"""Operators that compute in fp16 on inputs that fp16 holds, as mixed-precision training has them (Micikevicius et al.
2018, arXiv:1710.03740, section 3.3: products may, reductions and what normalizes may not)."""

_SUMS = {"CumSum", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
WIDE = frozenset(_SUMS | {"Exp", "Pow", "Reciprocal", "Sqrt"})
"""Operators whose results may leave fp16's range though their inputs don't, upwards or downwards."""

_NORMALIZATIONS = {f"{kind}Normalization" for kind in ("Group", "Instance", "Layer", "Lp", "RMS")}
_SQUASHING = {"Erf", "HardSigmoid", "Log", "LogSoftmax", "Sigmoid", "Softmax", "Softplus", "Tanh", QUANTIZE}
BOUNDING = frozenset(_NORMALIZATIONS | _SQUASHING)
"""Operators whose results fp16 holds whatever they read."""

_FLOAT_INPUTS = {("Resize", 1), ("Resize", 2)}  # its scales are float32 by the standard


def to_half(model: ir.Model) -> ir.Model:
    """Compute in fp16 where that is safe, in fp32 elsewhere; graph inputs and outputs keep their types.

    Changes values by fp16's rounding. Integers stay as they are; the scales of quantizers beside fp16 become fp16, on
    both sides of a pair. Raises GraphError for an opset below 18.
    """
    opset = model.opset_imports.get("", 0)
    if opset < LEAST_OPSET:
        raise GraphError(f"fp16: the graph has opset {opset}; convert it to {QDQ_OPSET} first (onnx.version_converter)")
    if any(value.type is None for node in model.graph for value in node.outputs):
        ShapeInferencePass()(model)
    _Conversion(model.graph).run()
    if opset < QDQ_OPSET and any(node.op_type in (QUANTIZE, DEQUANTIZE) for node in model.graph):
        model.opset_imports[""] = QDQ_OPSET
    return model


def fits(array: NDArray[np.generic]) -> bool:
    """Whether fp16 holds a float32 array's values; single ones may become 0 beside larger ones."""
    largest = float(np.abs(array.astype(np.float64)).max(initial=0))
    return largest == 0 or SMALLEST_NORMAL <= largest <= LARGEST


def wide_values(graph: ir.Graph) -> set[ir.Value]:
    """The values that fp16 may not hold."""
    wide: set[ir.Value] = set()
    for node in graph:
        if node.op_type not in BOUNDING and (_widens(node) or any(v in wide for v in node.inputs if v is not None)):
            # a quotient of two of them, as in a softmax or a layer norm spelt out, is normalized
            if node.op_type == "Div" and data_input(node, 1) in wide:
                continue
            wide.update(node.outputs)
    return wide


def _widens(node: ir.Node) -> bool:
    return node.op_type in WIDE or (node.op_type == "Mul" and data_input(node, 0) is data_input(node, 1))


class _Conversion:
    """The decisions about one graph, and the values that they make."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.wide = wide_values(graph)
        self.half = {node for node in graph if self._computes_in_half(node)}
        for node in reversed(graph):
            if node.op_type == DEQUANTIZE and self._dequantizes_to_half(node):
                self.half.add(node)
        for node in graph:
            if node.op_type == QUANTIZE and self._quantizes_half(node):
                self.half.add(node)
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        self._round_scales()
        for node in list(self.graph):
            if node in self.half:
                self._inputs_to_half(node)
            else:
                self._inputs_to_float(node)
        made = [node for node in self.graph if node in self.half]
        for value in [output for node in made for output in node.outputs if _is_float(output)]:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
        for node in made:
            self._keep_graph_outputs(node)

    def _computes_in_half(self, node: ir.Node) -> bool:
        if node.op_type not in HALF or node.domain not in ("", "ai.onnx") or not any(map(_is_float, node.outputs)):
            return False
        values = [value for value in node.inputs if value is not None and _is_float(value)]
        if any(value in self.wide for value in (*values, *node.outputs)):
            return False
        return all(self._holds(value) for value in values)

    def _holds(self, value: ir.Value) -> bool:
        array, producer = constant(value), value.producer()
        if array is not None:
            return fits(array)
        if producer is not None and producer.op_type == "Constant":
            written = producer.attributes.get_tensor("value")
            return written is not None and fits(written.numpy())
        return producer is None or producer.op_type != DEQUANTIZE or _scale_fits(producer)

    def _dequantizes_to_half(self, node: ir.Node) -> bool:
        readers = [user for user, _ in node.outputs[0].uses()]
        return any(user in self.half for user in readers) and _is_float(node.outputs[0]) and _scale_fits(node)

    def _quantizes_half(self, node: ir.Node) -> bool:
        return data_input(node).producer() in self.half and _scale_fits(node)

    def _round_scales(self) -> None:
        """Both sides of a pair keep one scale: one that fp16 holds exactly, where either side is fp16."""
        for node in self.graph:
            if node.op_type not in (QUANTIZE, DEQUANTIZE):
                continue
            partners = {node, *(user for user, _ in node.outputs[0].uses() if user.op_type == DEQUANTIZE)}
            if node.op_type == DEQUANTIZE and (producer := data_input(node).producer()) is not None:
                partners.add(producer)
            if self.half.isdisjoint(partners):
                continue
            scale = required_constant(data_input(node, 1), f"scale of {node.name}")
            rounded = scale.astype(np.float16)
            kept = rounded if node in self.half else rounded.astype(scale.dtype)
            node.replace_input_with(1, add_initializer(self.graph, f"{data_input(node, 1).name}.fp16", kept))

    def _inputs_to_half(self, node: ir.Node) -> None:
        for index, value in enumerate(node.inputs):
            if value is None or not _is_float(value) or (node.op_type, index) in _FLOAT_INPUTS:
                continue
            array = constant(value)
            if node.op_type in (QUANTIZE, DEQUANTIZE) and index > 0:
                continue
            if array is not None:
                made = add_initializer(self.graph, f"{value.name}.fp16", array.astype(np.float16))
                node.replace_input_with(index, made)
            elif value.producer() not in self.half:
                node.replace_input_with(index, self._cast(value, ir.DataType.FLOAT16))

    def _inputs_to_float(self, node: ir.Node) -> None:
        for output in [value for value in node.inputs if value is not None and value.producer() in self.half]:
            if _is_float(output):
                for index, value in enumerate(node.inputs):
                    if value is output:
                        node.replace_input_with(index, self._cast(output, ir.DataType.FLOAT))

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if (value, dtype) not in self.casts:
            self.casts[value, dtype] = self._new_cast(value, dtype)
        return self.casts[value, dtype]

    def _new_cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        name = free_name(self.graph, f"{value.name}.{'fp16' if dtype == ir.DataType.FLOAT16 else 'fp32'}")
        cast = ir.node("Cast", [value], {"to": int(dtype)}, name=free_name(self.graph, f"{name}.cast"))
        cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
        cast.outputs[0].type = ir.TensorType(dtype)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], cast)
        else:
            self.graph.insert_after(producer, cast)
        return cast.outputs[0]

    def _keep_graph_outputs(self, node: ir.Node) -> None:
        """What was read as fp32 under a value's name, outside the graph or in a branch's own graph, still is."""
        for value in node.outputs:
            inner = [(user, index) for user, index in value.uses() if user.graph is not self.graph]
            if value.dtype != ir.DataType.FLOAT16 or not (inner or value in self.graph.outputs):
                continue
            name = str(value.name)
            whole = self._cast(value, ir.DataType.FLOAT)
            for user, index in inner:
                user.replace_input_with(index, whole)
            for index, output in enumerate(self.graph.outputs):
                if output is value:
                    value.name = free_name(self.graph, f"{name}.fp16")
                    self.graph.outputs[index] = whole
                    whole.name = name


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


def _scale_fits(node: ir.Node) -> bool:
    """Whether fp16 holds every scale of a quantizer with 11 bits, and the largest integers times it."""
    scale = constant(data_input(node, 1))
    return scale is not None and bool((scale >= SMALLEST_NORMAL).all() and (scale <= LARGEST / 255).all())  # type: ignore[operator]
