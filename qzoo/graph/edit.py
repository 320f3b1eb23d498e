"""Reading and editing Q/DQ graphs: the few words that every pass is written in.

A pair is a QuantizeLinear and the one DequantizeLinear that reads it, through a SpaceToDepth where `blocks` put one.
Metadata keys, all under "qzoo.":

- "qzoo.role", "qzoo.module" on both nodes of a pair (comma-separated where several quantizers share it);
- "qzoo.input.<i>" on a consumer: "<role>:<module path>" of the quantizer that its input i came through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.errors import GraphError

ROLE, MODULE, INPUT = "qzoo.role", "qzoo.module", "qzoo.input."
QUANTIZE, DEQUANTIZE, BLOCKS = "QuantizeLinear", "DequantizeLinear", "SpaceToDepth"
MOVES_DATA = {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"}
"""Operators whose output holds values of their first input, and no others."""


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of an initializer, or None for anything that is computed."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def required_constant(value: ir.Value | None, what: str) -> NDArray[np.generic]:
    """The array of an initializer. Raises GraphError, naming `what`, if it is not one."""
    array = constant(value)
    if array is None:
        raise GraphError(f"{what} must be an initializer, but {value.name if value else 'it'} is computed")
    return array


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """A new initializer called `name`, or `name_1`, `name_2`, ... where that is taken by another value."""
    unique, count = name, 0
    while (known := graph.initializers.get(unique)) is not None:
        if _same(constant(known), array):
            return known
        count += 1
        unique = f"{name}_{count}"
    value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)  # type: ignore[union-attr]
    graph.register_initializer(value)
    return value


def free_name(graph: ir.Graph, name: str) -> str:
    """`name`, or `name_1`, `name_2`, ... where a node or value of the graph is called so already."""
    taken = {name for node in graph for name in (node.name, *(value.name for value in node.outputs))}
    taken |= {*graph.initializers, *(value.name for value in graph.inputs)}
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    return unique


def _same(a: NDArray[np.generic] | None, b: NDArray[np.generic]) -> bool:
    return a is not None and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@dataclass(frozen=True)
class Pair:
    """A QuantizeLinear with its DequantizeLinear."""

    quantize: ir.Node
    dequantize: ir.Node

    @property
    def tensor(self) -> ir.Value:
        """What is quantized."""
        return _present(self.quantize.inputs[0])

    @property
    def output(self) -> ir.Value:
        """The dequantized tensor that consumers read."""
        return self.dequantize.outputs[0]

    @property
    def scale(self) -> np.float32:
        """The scale, per tensor."""
        return np.float32(required_constant(self.quantize.inputs[1], f"scale of {self.quantize.name}"))

    @property
    def zero_point(self) -> NDArray[np.generic]:
        """The zero point, a scalar of the pair's integer type."""
        return required_constant(self.quantize.inputs[2], f"zero point of {self.quantize.name}")

    def grid(self) -> tuple[bytes, str, bytes]:
        """What two pairs must share to be one: scale, integer type, zero point."""
        return self.scale.tobytes(), str(self.zero_point.dtype), self.zero_point.tobytes()

    def set_grid(self, graph: ir.Graph, scale: np.float32, zero_point: NDArray[np.generic]) -> None:
        """Give both nodes another scale and zero point."""
        scale_value = add_initializer(graph, f"{self.tensor.name}_scale", np.asarray(scale, np.float32))
        zero_value = add_initializer(graph, _zero_name(zero_point), zero_point)
        for node in (self.quantize, self.dequantize):
            node.replace_input_with(1, scale_value)
            node.replace_input_with(2, zero_value)
        self.quantize.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(zero_point.dtype))


def _zero_name(zero_point: NDArray[np.generic]) -> str:
    return f"zero_point_{zero_point.dtype}_{int(zero_point)}"


def _present(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise GraphError("a node lacks an input that its operator requires")
    return value


def data_input(node: ir.Node, index: int = 0) -> ir.Value:
    """Input `index` of a node. Raises GraphError if it is left out."""
    return _present(node.inputs[index] if index < len(node.inputs) else None)


def pairs(graph: ir.Graph) -> Iterator[Pair]:
    """Every pair, in topological order. Raises GraphError for a Q that is not read by exactly one DQ."""
    for node in list(graph):
        if node.op_type != QUANTIZE:
            continue
        users = [user for user, _ in node.outputs[0].uses()]
        if len(users) == 1 and users[0].op_type == BLOCKS:
            users = [user for user, _ in users[0].outputs[0].uses()]
        if len(users) != 1 or users[0].op_type != DEQUANTIZE:
            readers = ", ".join(str(user.name) for user in users) or "nothing"
            raise GraphError(f"{node.name}: a QuantizeLinear must be read by one DequantizeLinear, not by {readers}")
        yield Pair(node, users[0])


def insert_pair(
    graph: ir.Graph, tensor: ir.Value, scale: np.float32, zero_point: NDArray[np.generic], like: Pair
) -> Pair:
    """Put a pair on `tensor`, right after its producer, annotated like another; consumers are not rewired."""
    stem = free_name(graph, f"{tensor.name}_q")
    quantize = ir.node(QUANTIZE, [tensor, None, None], name=f"{stem}_quantize")
    dequantize = ir.node(DEQUANTIZE, [quantize.outputs[0], None, None], name=f"{stem}_dequantize")
    quantize.outputs[0].name, dequantize.outputs[0].name = f"{stem}_int", stem
    for node in (quantize, dequantize):
        node.outputs[0].shape = tensor.shape
        node.metadata_props.update({key: like.quantize.metadata_props[key] for key in (ROLE, MODULE)})
    dequantize.outputs[0].type = tensor.type
    producer = tensor.producer()
    if producer is None:
        graph.insert_before(graph[0], (quantize, dequantize))
    else:
        graph.insert_after(producer, (quantize, dequantize))
    pair = Pair(quantize, dequantize)
    pair.set_grid(graph, scale, zero_point)
    return pair


def replace_node(graph: ir.Graph, node: ir.Node, by: ir.Node) -> None:
    """Put a new one-output node in the place of another; its output takes over the name and the consumers."""
    old, new = node.outputs[0], by.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    graph.insert_before(node, by)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def weight_dequantizers(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every DequantizeLinear over an int8 initializer (a weight)."""
    for node in list(graph):
        if node.op_type == DEQUANTIZE and (stored := constant(node.inputs[0])) is not None and stored.dtype == np.int8:
            yield node


def dequantized(node: ir.Node) -> NDArray[np.float32]:
    """The float weight that a DequantizeLinear over an initializer stands for. Raises GraphError if it is computed."""
    stored = required_constant(node.inputs[0], f"weight of {node.name}")
    scale = required_constant(node.inputs[1], f"scale of {node.name}")
    axis = node.attributes.get_int("axis", 1)
    shape = [-1 if i == axis else 1 for i in range(stored.ndim)] if scale.ndim else []
    return stored.astype(np.float32) * scale.astype(np.float32).reshape(shape)


def store_float(graph: ir.Graph, node: ir.Node, index: int) -> None:
    """Give input `index` of a node, where it is a stored integer weight, as the float initializer it stands for."""
    dequantize = data_input(node, index).producer()
    if dequantize is not None and dequantize.op_type == DEQUANTIZE and constant(dequantize.inputs[0]) is not None:
        name = f"{data_input(dequantize).name}.float"
        node.replace_input_with(index, add_initializer(graph, name, dequantized(dequantize)))


def quantizers_of(pair: Pair) -> set[str]:
    """The module paths of the quantizers that a pair stands for."""
    return set(filter(None, pair.quantize.metadata_props.get(MODULE, "").split(",")))


def roles_of(node: ir.Node) -> dict[int, str]:
    """Which role each quantized input of a consumer was quantized in: {input index: role}."""
    return {
        int(key.removeprefix(INPUT)): value.partition(":")[0]
        for key, value in node.metadata_props.items()
        if key.startswith(INPUT)
    }


def remove_dead(graph: ir.Graph) -> None:
    """Remove nodes whose outputs nobody reads, and initializers nobody reads."""
    outputs = set(graph.outputs)
    for node in reversed(graph):
        if not any(out.uses() or out in outputs for out in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in outputs:
            del graph.initializers[name]
