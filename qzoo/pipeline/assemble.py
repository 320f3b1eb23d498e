"""Portable graph -> lowered graph -> engine -> verified -> measured: one target's files and figures. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qzoo.apart import Apart, turns
from qzoo.backends.ort import reference
from qzoo.errors import TargetUnsupported
from qzoo.hookspecs import Backend, Engine
from qzoo.measure import fidelity, latency
from qzoo.pipeline.progress import Progress
from qzoo.records import (
    EngineRecord,
    Fidelity,
    Latency,
    LayerTable,
    Target,
    TensorInfo,
    Verified,
    digest_of,
    encode,
    file_digest,
)
from qzoo.spec import Decision, Precision, Preprocess, Recipe
from qzoo.store import LAYERS

Outputs = dict[str, NDArray[np.float32]]

BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an engine's sidecar says beside its target and digest."""

    model: str
    preprocess: Preprocess
    decision: Decision
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What an engine computed, and how close it is to its lowered graph."""

    outputs: Outputs
    fidelity: Fidelity


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """An engine and what was found out about it. `ran` is None, and it is only planned, where it can't run here."""

    lowered: bytes
    engine_name: str
    engine: bytes
    record: EngineRecord
    layers: LayerTable | None
    lowered_outputs: Outputs
    ran: Ran | None

    @property
    def verified(self) -> Verified:
        return "planned" if self.ran is None else "passed"

    @property
    def engine_fidelity(self) -> Fidelity | None:
        return None if self.ran is None else self.ran.fidelity

    def files(self) -> dict[str, bytes]:
        """What it adds to a bundle, by name."""
        files = {
            "lowered.onnx": self.lowered,
            self.engine_name: self.engine,
            f"{self.engine_name}.json": encode(self.record),
        }
        return files if self.layers is None else {**files, LAYERS: encode(self.layers)}


def serialize(model: ir.Model) -> bytes:
    """The same bytes for the same graph."""
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


def tensor_infos(model: ir.Model) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """The inputs and outputs of a graph, their shapes without the batch."""

    def info(value: ir.Value) -> TensorInfo:
        shape = tuple(int(d) for d in (value.shape or ())[1:] if isinstance(d, int))
        return TensorInfo(name=str(value.name), shape=shape, dtype="float32")

    return tuple(map(info, model.graph.inputs)), tuple(map(info, model.graph.outputs))


def assemble(
    portable: ir.Model,
    recipe: Recipe,
    backend: Backend,
    target: Target,
    facts: Facts,
    images: NDArray[np.float32],
    *,
    trained: bool,
    progress: Progress,
    own: Mapping[str, str] = MappingProxyType({}),
) -> Assembled:
    """Lower and build; where the engine runs here, run it over `images` (N, C, H, W) and compare with the graph.

    `own` goes into the build's config and not into the engine's record. Raises GraphError or TargetError. What the
    comparison allows is for `gates.check_engine` to say.
    """
    progress.stage(f"lowering for {target}")
    lowered = backend.lower(portable, recipe, target)
    lowered_bytes = serialize(lowered)
    progress.stage(f"building {backend.name} engine")
    with TemporaryDirectory(prefix="qzoo-") as folder:
        made = build_engine(lowered, recipe, backend, target, facts, Path(folder), own)
        progress.stage(f"verifying {backend.name} engine", 2)
        outputs = run_batched(backend.load(made.path, made.record), images) if backend.runs(target) else None
        progress.advance()
        lowered_outputs = run_reference(lowered_bytes, images)
        progress.advance()
        return Assembled(
            lowered=lowered_bytes,
            engine_name=made.path.name,
            engine=made.path.read_bytes(),
            record=made.record,
            layers=made.layers,
            lowered_outputs=lowered_outputs,
            ran=None
            if outputs is None
            else Ran(outputs=outputs, fidelity=fidelity(lowered_outputs, outputs, facts.decision, trained=trained)),
        )


class Built(NamedTuple):
    """An engine file, its record, and its layers where the runtime tells them."""

    path: Path
    record: EngineRecord
    layers: LayerTable | None


def engine_config(backend: Backend, target: Target, recipe: Recipe) -> dict[str, str]:
    """What a runtime is told to build an engine, as the engine's record keeps it."""
    return {**backend.config(recipe.precision), **backend.fixed(target, recipe)}


def build_engine(
    lowered: ir.Model,
    recipe: Recipe,
    backend: Backend,
    target: Target,
    facts: Facts,
    folder: Path,
    own: Mapping[str, str] = MappingProxyType({}),
) -> Built:
    """Build an engine file in `folder`. `own` goes into the build's config and not into the engine's record."""
    config = engine_config(backend, target, recipe)
    path, graph = folder / f"engine{backend.suffix}", serialize(lowered)
    layers = backend.build(graph, {**config, **own}, path)
    inputs, outputs = tensor_infos(lowered)
    record = EngineRecord(
        model=facts.model,
        precision=recipe.precision,
        target=target,
        sha256=file_digest(path),
        size_bytes=path.stat().st_size,
        config=config,
        inputs=inputs,
        outputs=outputs,
        preprocess=facts.preprocess,
        decision=facts.decision,
        labels=facts.labels,
        max_batch=recipe.batch.max,
        graph_sha256=digest_of(graph),
        layers_sha256=None if layers is None else digest_of(encode(layers)),
    )
    return Built(path, record, layers)


@dataclass(frozen=True, slots=True)
class FloatEngines:
    """The same runtime's float engines: latencies side by side with the engine's, and the fp32 one's size in bytes."""

    latency: dict[str, Latency]
    size_bytes: int | None


def measure_latency(
    engine: Assembled,
    float_graph: ir.Model,
    recipe: Recipe,
    backend: Backend,
    facts: Facts,
    plugin_dirs: Sequence[Path],
) -> FloatEngines:
    """Latency of the engine and of its runtime's float engines, in turn, at the profile's opt batch.

    Of an engine that can't run here only the fp32 one's size.
    """
    target, threads = engine.record.target, os.cpu_count() or 1
    runs, found = engine.ran is not None, dict[str, Apart]()
    size = engine.record.size_bytes if recipe.precision == "fp32" else None
    with TemporaryDirectory(prefix="qzoo-") as folder:
        if runs:
            own = Path(folder) / engine.engine_name
            own.write_bytes(engine.engine)
            found[recipe.precision] = Apart.of(own, engine.record, recipe.batch.opt, plugin_dirs)
        for precision in _float_precisions(backend, recipe.precision, runs=runs):
            place = Path(folder) / precision
            place.mkdir()
            float_recipe = Recipe(target=backend.name, precision=precision, batch=recipe.batch, builder=recipe.builder)
            lowered = backend.lower(float_graph, float_recipe, target)
            path, record, _ = build_engine(lowered, float_recipe, backend, target, facts, place)
            size = record.size_bytes if precision == "fp32" else size
            if runs:
                found[precision] = Apart.of(path, record, recipe.batch.opt, plugin_dirs)
        with turns(found) as taken:
            measured = latency(taken, batch=recipe.batch.opt, threads=threads)
        return FloatEngines(measured, size)


def _float_precisions(backend: Backend, own: Precision, *, runs: bool) -> list[Precision]:
    usable: list[Precision] = []
    for precision in backend.float_precisions if runs else ("fp32",):
        try:
            backend.check_precision(precision)
        except TargetUnsupported:
            continue  # this CPU lacks it: there is nothing to compare with
        if precision != own:
            usable.append(precision)
    return usable


def run_batched(engine: Engine, images: NDArray[np.float32]) -> Outputs:
    """An engine's outputs over all images."""
    name = engine.record.inputs[0].name
    size = min(BATCH, engine.record.max_batch)
    return _joined(engine.run({name: images[i : i + size]}) for i in range(0, len(images), size))


def run_reference(graph: bytes, images: NDArray[np.float32]) -> Outputs:
    """A graph's outputs over all images, in onnxruntime with every optimization off."""
    session = reference(graph)
    names = [output.name for output in session.get_outputs()]
    feed = session.get_inputs()[0].name
    return _joined(
        dict(zip(names, session.run(names, {feed: images[i : i + BATCH]}), strict=True))
        for i in range(0, len(images), BATCH)
    )


def _joined(parts: object) -> Outputs:
    collected: dict[str, list[NDArray[np.float32]]] = {}
    for part in parts:  # type: ignore[attr-defined]
        for name, array in part.items():
            collected.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in collected.items()}
