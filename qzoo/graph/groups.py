"""Parts of a network that may be faster in float, and the pass that keeps modules in float on one target.

A bundle's portable graph has everything quantized; what one runtime is better off computing in float is a choice of its
recipe (`Recipe.float_modules`), and `qzoo build --autotune` measures which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx_ir as ir

from qzoo.graph.edit import DEQUANTIZE, INPUT, constant, pairs, store_float
from qzoo.graph.grids import pair_of
from qzoo.spec import matches_any


def keep_float(globs: Iterable[str]) -> Callable[[ir.Model], ir.Model]:
    """Compute modules in float: their inputs are not quantized for them, their weights are stored as floats.

    Changes values: such an input is no longer rounded. The weights stay on the grid of their integers.
    """
    chosen = tuple(globs)

    def run(model: ir.Model) -> ir.Model:
        outputs = {pair.output: pair for pair in pairs(model.graph)}
        for node in list(model.graph) if chosen else ():
            for index, module in _modules(node):
                if not matches_any(module, chosen):
                    continue
                source = node.inputs[index]
                if source in outputs:
                    node.replace_input_with(index, outputs[source].tensor)
                else:
                    store_float(model.graph, node, index)
                node.metadata_props.pop(f"{INPUT}{index}")
        return model

    return run


def float_groups(portable: ir.Model) -> dict[str, tuple[str, ...]]:
    """Paths of quantized modules by what they are, of the kinds that there are:

    - "depthwise": convolutions of one channel a group, which move more memory than they compute;
    - "gates": squeeze-and-excitation and attention over channels, from the global average to the multiply;
    - "first": the convolutions that read the network's input; "last": the products that give its outputs.
    """
    graph = portable.graph
    groups = {
        "depthwise": [node for node in graph if _depthwise(node)],
        "gates": [node for multiply in graph if multiply.op_type == "Mul" for node in _gate(multiply)],
        "first": [node for node in graph if node.op_type == "Conv" and _reads_input(node, graph)],
        "last": [node for node in graph if node.op_type in {"Gemm", "MatMul"} and node.outputs[0] in graph.outputs],
    }
    paths = {
        name: tuple(dict.fromkeys(module for node in nodes for _, module in _modules(node)))
        for name, nodes in groups.items()
    }
    return {name: found for name, found in paths.items() if found}


def _modules(node: ir.Node) -> Iterator[tuple[int, str]]:
    """The quantized inputs of a node, each with the module that quantizes it."""
    for key, value in list(node.metadata_props.items()):
        if key.startswith(INPUT):
            yield int(key.removeprefix(INPUT)), value.partition(":")[2].rpartition(".")[0]


def _depthwise(node: ir.Node) -> bool:
    if node.op_type != "Conv" or node.attributes.get_int("group", 1) == 1:
        return False
    weight = node.inputs[1]
    dequantize = None if weight is None else weight.producer()
    if dequantize is None or dequantize.op_type != DEQUANTIZE:
        return False
    stored = constant(dequantize.inputs[0])
    return stored is not None and stored.shape[1] == 1


def _gate(multiply: ir.Node) -> list[ir.Node]:
    """The nodes from a global average to a multiply, that included; none where no operand comes from one."""
    for operand in multiply.inputs:
        found, reached = [multiply], False
        queue = [operand]
        for value in queue:  # grows as nodes are found
            node = None if value is None else value.producer()
            if node is None or node in found:
                continue
            found.append(node)
            pools = _pools_globally(node)
            reached |= pools
            queue += [] if pools else list(node.inputs)
            if len(found) > _LONGEST_GATE:
                break
        else:
            if reached:
                return found
    return []


def _pools_globally(node: ir.Node) -> bool:
    """Whether it takes the average or the maximum of each channel of (N, C, H, W); the exporter has two forms of it."""
    if node.op_type in {"GlobalAveragePool", "GlobalMaxPool"}:
        return True
    axes = constant(node.inputs[1]) if node.op_type in {"ReduceMean", "ReduceMax"} and len(node.inputs) > 1 else None
    return axes is not None and {int(axis) % 4 for axis in axes.ravel()} == {2, 3}


_LONGEST_GATE = 40
"""Nodes, quantizers included: CBAM's channel attention has about 30. More is no gate but the network before it."""


def _reads_input(node: ir.Node, graph: ir.Graph) -> bool:
    source = pair_of(node.inputs[0])
    return source is not None and source.tensor in graph.inputs
