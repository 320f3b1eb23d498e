"""At which operator an engine departs from its lowered graph. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.errors import TargetError
from qzoo.graph.edit import DEQUANTIZE, MOVES_DATA, QUANTIZE, ROLE, remove_dead
from qzoo.hookspecs import Backend
from qzoo.measure import worst_sqnr_db
from qzoo.pipeline.assemble import Assembled, Facts, build_engine, run_batched, run_reference, serialize
from qzoo.spec import Recipe

IMAGES = 4
_COMPUTES_NOTHING = {*MOVES_DATA, QUANTIZE, DEQUANTIZE}


@dataclass(frozen=True, slots=True)
class Departure:
    """An operator of a lowered graph, the layer with weights that comes before it, and the SQNR of its output in dB."""

    node: str
    operator: str
    layer: str | None
    sqnr_db: float

    def __str__(self) -> str:
        place = f"{self.node} ({self.operator}{f', after {self.layer}' if self.layer else ''})"
        kept = f", or keep {self.layer} in float (keep_float of its spec)" if self.layer else ""
        return f"it departs at {place}, {self.sqnr_db:.1f} dB there; take another --target{kept}"


def find_departure(
    engine: Assembled,
    recipe: Recipe,
    backend: Backend,
    facts: Facts,
    images: NDArray[np.float32],
    least_db: float,
) -> Departure | None:
    """The operator whose output is less than `least_db` from the graph's where the one before is nearer.

    Found by halving: the graph is cut behind an operator, which then gives its only output, built, and run over a few
    of `images` (N, C, H, W). None where the graph cut behind its last operator is near enough, or can't be built so.
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.load_from_string(engine.lowered)))
    nodes = list(_computed(model.graph))

    def sqnr_behind(place: int) -> float:
        cut = _cut(model, str(nodes[place].outputs[0].name))
        with TemporaryDirectory(prefix="qzoo-") as folder:
            made = build_engine(cut, recipe, backend, engine.record.target, facts, Path(folder))
            found = run_batched(backend.load(made.path, made.record), images[:IMAGES])
        return worst_sqnr_db(run_reference(serialize(cut), images[:IMAGES]), found)

    near, far = -1, len(nodes) - 1
    try:
        sqnr = sqnr_behind(far)
        if sqnr >= least_db:
            return None
        while far - near > 1:
            middle = (near + far) // 2
            found = sqnr_behind(middle)
            if found >= least_db:
                near = middle
            else:  # if it is nan, too
                far, sqnr = middle, found
    except TargetError:
        return None
    return Departure(str(nodes[far].name), nodes[far].op_type, _layer_before(model.graph, nodes[far]), sqnr)


def _computed(graph: ir.Graph) -> Iterator[ir.Node]:
    """The operators that compute float values from the graph's inputs, in its order."""
    depends = set(graph.inputs)
    for node in graph:
        if depends.isdisjoint(node.inputs):
            continue
        depends.update(node.outputs)
        if node.op_type not in _COMPUTES_NOTHING and node.outputs[0].dtype == ir.DataType.FLOAT:
            yield node


def _cut(model: ir.Model, output: str) -> ir.Model:
    """The graph up to a value, its only output."""
    cut = model.clone()
    (value,) = [value for node in cut.graph for value in node.outputs if value.name == output]
    cut.graph.outputs.clear()
    cut.graph.outputs.append(value)
    remove_dead(cut.graph)
    return cut


def _layer_before(graph: ir.Graph, node: ir.Node) -> str | None:
    """The path of the last layer with quantized weights that a node depends on, or is."""
    needed = {node}
    for one in reversed(graph):
        sources = [value.producer() for value in one.inputs if value is not None] if one in needed else []
        for source in sources:
            if source is not None and source.metadata_props.get(ROLE) == "weight":
                return str(source.name).partition("_quantizer")[0].rpartition(".")[0]
        needed.update(source for source in sources if source is not None)
    return None
