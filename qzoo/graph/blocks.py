"""The convolution that reads an image, two rows and two columns at a time.

onnxruntime gathers what a convolution multiplies pixel by pixel, and an image's pixel is three bytes, so a network's
first convolution takes several times as long as its arithmetic. One that moves by two pixels can as well read blocks of
two by two, which are twelve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.graph.edit import BLOCKS, DEQUANTIZE, Pair, add_initializer, constant, data_input
from qzoo.graph.grids import pair_of

MAX_CHANNELS = 4
"""An image's. Of more channels a runtime gathers enough bytes at a time as it is."""
_NEEDED = {"strides": (2, 2), "dilations": (1, 1)}


def convolve_blocks(model: ir.Model) -> ir.Model:
    """Conv of stride 2 over quantized (N, C, H, W), C <= MAX_CHANNELS, H and W even -> SpaceToDepth and a Conv. Exact.

    That Conv reads (N, 4 C, H / 2, W / 2) with stride 1 and half the kernel, rounded up, whose new places hold zeros.
    Comes last: the SpaceToDepth stands between a QuantizeLinear and its DequantizeLinear, where integers are moved.
    """
    for node in list(model.graph):
        source, weights = _operands(node)
        if source is None or weights is None:
            continue
        stored = constant(weights.inputs[0])
        axes = None if stored is None else _axes(node, source.tensor.shape, stored.shape)
        if stored is not None and axes is not None:
            _rewrite(model.graph, node, source, weights, stored, axes)
    return model


@dataclass(frozen=True)
class _Axis:
    """A convolution of stride 2 along one axis: `kernel` pixels of `size`, padded by `before` and `after`."""

    size: int
    kernel: int
    before: int
    after: int

    @property
    def first(self) -> int:
        """The block that the kernel begins in, counted from the one that its output is at."""
        return -self.before // 2

    @property
    def count(self) -> int:
        """How many blocks the kernel touches."""
        return (self.kernel - 1 - self.before) // 2 - self.first + 1

    @property
    def last_padding(self) -> int:
        """Blocks of padding after the last, so that there are as many outputs; below 0 where some aren't read."""
        outputs = (self.size + self.before + self.after - self.kernel) // 2 + 1
        return outputs + self.count - 1 - self.size // 2 + self.first


def _operands(node: ir.Node) -> tuple[Pair | None, ir.Node | None]:
    """The pair and the weight's DequantizeLinear that only this convolution reads."""
    if node.op_type != "Conv":
        return None, None
    source, weights = pair_of(node.inputs[0]), data_input(node, 1).producer()
    operands = data_input(node), data_input(node, 1)
    alone = all(len(operand.uses()) == 1 and not operand.is_graph_output() for operand in operands)
    return (source, weights) if alone and weights is not None and weights.op_type == DEQUANTIZE else (None, None)


def _axes(node: ir.Node, shape: ir.Shape | None, kernel: tuple[int, ...]) -> tuple[_Axis, _Axis] | None:
    """Both axes of an image's convolution that can read blocks, else None."""
    attributes = node.attributes
    if shape is None or len(kernel) != 4 or kernel[1] > MAX_CHANNELS or min(kernel[2:]) < 2:
        return None
    if any(tuple(attributes.get_ints(name, (1, 1))) != needed for name, needed in _NEEDED.items()):
        return None
    if attributes.get_int("group", 1) != 1 or attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    height, width = shape[2:]
    if not isinstance(height, int) or not isinstance(width, int) or height % 2 or width % 2:
        return None
    top, left, bottom, right = attributes.get_ints("pads", (0, 0, 0, 0))
    rows, columns = _Axis(height, kernel[2], top, bottom), _Axis(width, kernel[3], left, right)
    return None if min(rows.last_padding, columns.last_padding) < 0 else (rows, columns)


def _rewrite(
    graph: ir.Graph,
    node: ir.Node,
    source: Pair,
    weights: ir.Node,
    stored: NDArray[np.generic],
    axes: tuple[_Axis, _Axis],
) -> None:
    rows, columns = axes
    blocks = ir.node(BLOCKS, [source.quantize.outputs[0]], {"blocksize": 2}, name=f"{source.quantize.name}_blocks")
    blocks.outputs[0].name, blocks.outputs[0].type = f"{blocks.name}_output", source.quantize.outputs[0].type
    graph.insert_after(source.quantize, blocks)
    source.dequantize.replace_input_with(0, blocks.outputs[0])
    batch, channels = source.tensor.shape[0], stored.shape[1]  # type: ignore[index]
    shape = ir.Shape((batch, 4 * channels, rows.size // 2, columns.size // 2))
    blocks.outputs[0].shape = source.output.shape = shape
    weights.replace_input_with(0, add_initializer(graph, f"{node.name}.blocks", _in_blocks(stored, rows, columns)))
    changed = {
        "strides": (1, 1),
        "kernel_shape": (rows.count, columns.count),
        "pads": (-rows.first, -columns.first, rows.last_padding, columns.last_padding),
    }
    for name, value in changed.items():
        node.attributes[name] = ir.AttrInt64s(name, value)


def _in_blocks(stored: NDArray[np.generic], rows: _Axis, columns: _Axis) -> NDArray[np.generic]:
    """(M, C, KH, KW) -> (M, 4 C, rows.count, columns.count), channels as ONNX's SpaceToDepth orders them."""
    outputs, channels = stored.shape[:2]
    placed = np.zeros((outputs, channels, rows.count, 2, columns.count, 2), stored.dtype)
    padded = placed.reshape(outputs, channels, 2 * rows.count, 2 * columns.count)
    top, left = (-axis.before - 2 * axis.first for axis in (rows, columns))
    padded[:, :, top : top + rows.kernel, left : left + columns.kernel] = stored
    ordered = placed.transpose(0, 3, 5, 1, 2, 4)  # ONNX, operator SpaceToDepth: row in the block, column, channel
    return np.ascontiguousarray(ordered.reshape(outputs, 4 * channels, rows.count, columns.count))
