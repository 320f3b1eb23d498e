"""build(): a model's name in, a bundle in the store out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qzoo.data.sampler import sample_list_digest
from qzoo.errors import UsageError
from qzoo.measure import accuracy, decide, fidelity, worst_sqnr_db
from qzoo.pipeline.assemble import (
    Assembled,
    Facts,
    FloatEngines,
    Outputs,
    assemble,
    measure_latency,
    run_reference,
    serialize,
)
from qzoo.pipeline.departure import find_departure
from qzoo.pipeline.gates import check_accuracy, check_engine, check_export, check_finite
from qzoo.pipeline.plan import COMPARE, Autotune, Options, Plan, make_plan
from qzoo.pipeline.progress import Clocked, Progress, Silent
from qzoo.records import Accuracy, Candidate, Fidelity, FileEntry, Manifest, Measurement, digest_of, encode
from qzoo.registry import Registry
from qzoo.spec import AUTO, BatchProfile, BuilderSettings, Placement, Precision
from qzoo.store import Bundle, EngineFile, Store, tag_for
from qzoo.zoo.gate import answers

if TYPE_CHECKING:
    from qzoo.pipeline.images import Images
    from qzoo.pipeline.prepare import Prepared

UNLABELLED = 16
"""Held-out images without labels that the portable graph is compared on. With labels its decision on each is."""


def build(
    model: str,
    *,
    precision: Precision = "int8",
    target: str = "auto",
    weights: str | Path = "auto",
    data: str | Path | None = None,
    labels: Path | None = None,
    calibrator: str | None = None,
    calib_samples: int = 64,
    placement: Placement | None = None,
    weight_bits: int | None = None,
    qat_epochs: int = 0,
    batch_size: int = 1,
    batch: BatchProfile | None = None,
    builder: BuilderSettings | None = None,
    timing_cache: Path | None = None,
    max_drop: float | None = None,
    seed: int = 0,
    workers: int = 0,
    strict: bool = False,
    autotune: Autotune | None = None,
    force: bool = False,
    plugin_dirs: Sequence[Path] = (),
) -> Bundle:
    """Build a verified, measured engine of a model, or serve it from the store if the same was built before.

    `weights` is "auto", "random" or a checkpoint file; `data` a dataset's name or a directory of images; `calibrator`
    "max", "percentile[:P]", "mse", "entropy", "auto" (the best of them) or "all" (the recipe's, and a report on all);
    `max_drop` accuracy points; `workers` processes decode images (0: this one); `strict` refuses images that can't be
    read instead of skipping them. See `qzoo build --help`. Raises a QzooError.
    """
    store = Store.default()
    options = Options(
        model=model,
        precision=precision,
        target=target,
        weights=str(weights),
        data=None if data is None else str(data),
        labels=labels,
        calibrator=calibrator,
        calib_samples=calib_samples,
        placement=placement,
        weight_bits=weight_bits,
        qat_epochs=qat_epochs,
        batch_size=batch_size,
        batch=batch,
        builder=builder,
        timing_cache=timing_cache,
        max_drop=max_drop,
        seed=seed,
        workers=workers,
        strict=strict,
    )
    registry = Registry.load(plugin_dirs)
    if autotune is not None:
        from qzoo.pipeline.autotune import autotune as tune

        return tune(replace(options, autotune=autotune), registry, store, force=force).bundle
    plan = make_plan(options, registry, store.home / "cache")
    return next(iter(build_all([plan], store, force=force)))


def build_all(
    plans: Iterable[Plan], store: Store, *, force: bool = False, progress: Progress | None = None
) -> list[Bundle]:
    """Build every plan; what neighbouring plans share (the calibrated network) is made once. Raises a QzooError."""
    shown = progress or Silent()
    prepared: dict[str, Prepared] = {}
    bundles = []
    for plan in plans:
        known = None if force else stored(plan, store)
        bundles.append(known or build_one(plan, store, prepared, shown))
    return bundles


def stored(plan: Plan, store: Store) -> Bundle | None:
    """The bundle that answers a plan without building it."""
    found = store.find(plan.inputs.bundle_id)
    if found and not answers(EngineFile(found.engine, found.record), store):
        return None
    # one that skipped images is no answer to --strict: building it again says which; nor is one that compared nothing
    # to --calib all
    if found and ((plan.strict and found.measurement.skipped) or (plan.compared and not found.measurement.calibrators)):
        return None
    return found


def export_graph(plan: Plan, form: str, progress: Progress | None = None) -> bytes:
    """The portable or lowered graph of a plan, serialized. Raises UsageError for a plan that reports."""
    from qzoo.pipeline.prepare import prepare

    if plan.compared and plan.recipe.calibrator != AUTO:
        raise UsageError(f"--calib {COMPARE} reports on a build; to export a graph name one calibrator, or {AUTO}")
    portable = prepare(plan, progress or Silent()).portable
    if form == "portable":
        return serialize(portable)
    return serialize(plan.backend.lower(portable, plan.recipe, plan.target))


def build_one(
    plan: Plan,
    store: Store,
    prepared: dict[str, Prepared],
    progress: Progress,
    candidates: tuple[Candidate, ...] = (),
) -> Bundle:
    """Build a plan, with what `prepared` has of it by `shared_key`; `candidates` are what --autotune chose it from."""
    from qzoo.pipeline.prepare import prepare

    key = shared_key(plan)
    if key not in prepared:
        prepared.clear()  # one network's images and weights at a time
        prepared[key] = prepare(plan, progress)
    graphs = prepared[key]
    images = graphs.held_out.images
    facts, clocked = facts_of(plan), Clocked(progress)
    export_fidelity = _check_export(plan, graphs, clocked)
    engine = assemble(
        graphs.portable,
        plan.recipe,
        plan.backend,
        plan.target,
        facts,
        images,
        trained=plan.trained,
        progress=clocked,
        own={} if plan.timing_cache is None else {"timing_cache": str(plan.timing_cache)},
    )
    check_finite(engine.lowered_outputs, plan.recipe.precision, plan.spec.name)
    lowered_fidelity = fidelity(graphs.float_outputs, engine.lowered_outputs, plan.spec.decision, trained=plan.trained)
    quantization = lowered_fidelity if plan.recipe.quantized else None
    check_engine(
        engine.engine_fidelity,
        quantization,
        plan.recipe,
        plan.backend.name,
        lambda least: find_departure(engine, plan.recipe, plan.backend, facts, images, least),
    )
    clocked.stage("measuring latency")
    latencies = measure_latency(engine, graphs.float_graph, plan.recipe, plan.backend, facts, plan.plugin_dirs)
    measurement = replace(
        _measurement(plan, graphs, engine, latencies),
        candidates=candidates,
        seconds={**graphs.seconds, **clocked.seconds()},
        export_fidelity=export_fidelity,
        lowering_cost_db=None
        if graphs.fake_quantized_outputs is None
        else round(
            worst_sqnr_db(graphs.float_outputs, graphs.fake_quantized_outputs)
            - worst_sqnr_db(graphs.float_outputs, engine.lowered_outputs),
            3,
        ),
    )
    # an engine that didn't run is held to what its lowered graph loses
    judged = replace(
        measurement,
        accuracy=_accuracy(plan, graphs, engine.lowered_outputs if engine.ran is None else engine.ran.outputs),
        fidelity=measurement.fidelity or lowered_fidelity,
    )
    check_accuracy(judged, plan.recipe.tolerances, plan.spec.name, graphs.worst_layers)
    progress.stage("storing the bundle")
    return _store(plan, graphs, engine, measurement, store)


def _check_export(plan: Plan, graphs: Prepared, progress: Progress) -> Fidelity:
    """The portable graph, unoptimized, against the network it was exported from. Raises AccuracyGateError."""
    progress.stage("portable graph in onnxruntime, unoptimized")
    images, labels = graphs.held_out.images, graphs.held_out.labels
    compared = len(images) if labels is not None else UNLABELLED
    outputs = run_reference(serialize(graphs.portable), images[:compared])
    network, decision, quantization = _first(compared, graphs.float_outputs), plan.spec.decision, None
    if graphs.fake_quantized_outputs is not None:
        fake_quantized = _first(compared, graphs.fake_quantized_outputs)
        quantization = fidelity(network, fake_quantized, decision, trained=plan.trained)
        network = fake_quantized
    found = fidelity(network, outputs, decision, trained=plan.trained)
    check_export(found, quantization, plan.recipe.tolerances, plan.spec.name)
    return found


def _first(count: int, outputs: Outputs) -> Outputs:
    return {name: array[:count] for name, array in outputs.items()}


def facts_of(plan: Plan) -> Facts:
    """What the sidecar of a plan's engine says beside its target and digest."""
    return Facts(
        model=plan.spec.name,
        preprocess=plan.spec.input.preprocess,
        decision=plan.spec.decision,
        labels=plan.inputs.labels,
    )


def shared_key(plan: Plan) -> str:
    """What plans have in common that start from one portable graph."""
    recipe = plan.recipe
    return digest_of(
        (
            plan.inputs.model,
            plan.inputs.plugin_source_sha256,
            plan.inputs.weights,
            plan.inputs.sample_list_sha256,
            plan.inputs.held_out_list_sha256,
            plan.inputs.seed,
            (recipe.quantized, recipe.calibrator, recipe.per_channel, recipe.placement, recipe.keep_float),
            (recipe.weight_bits, recipe.qat),
            sample_list_digest(plan.compared),
        )
    )


def _measurement(plan: Plan, graphs: Prepared, engine: Assembled, latencies: FloatEngines) -> Measurement:
    ran, decision = engine.ran, plan.spec.decision
    return Measurement(
        target=plan.target,
        verified=engine.verified,
        size_bytes={"float": latencies.size_bytes, "engine": engine.record.size_bytes},
        latency=latencies.latency,
        accuracy=None if ran is None else _accuracy(plan, graphs, ran.outputs),
        fidelity=None if ran is None else fidelity(graphs.float_outputs, ran.outputs, decision, trained=plan.trained),
        export_fidelity=None,
        engine_fidelity=engine.engine_fidelity,
        lowering_cost_db=None,
        data=plan.dataset.name,
        notes=(*plan.notes, *_planned(plan, graphs, engine), *_skipped(graphs), *graphs.left_in_float()),
        calibrators=graphs.trials,
        skipped=tuple(one for _, read in _read_images(graphs) for one in read.skipped),
    )


def _accuracy(plan: Plan, graphs: Prepared, outputs: Outputs) -> dict[Literal["float", "engine"], Accuracy] | None:
    labels = graphs.held_out.labels
    if labels is None or not plan.trained:
        return None
    return {
        "float": accuracy(decide(graphs.float_outputs, plan.spec.decision), labels),
        "engine": accuracy(decide(outputs, plan.spec.decision), labels),
    }


def _planned(plan: Plan, graphs: Prepared, engine: Assembled) -> list[str]:
    if engine.ran is not None:
        return []
    found = _accuracy(plan, graphs, engine.lowered_outputs)
    correct = "" if found is None else f" ({found['engine'].correct} of {found['engine'].total} right)"
    reason = plan.backend.probe().reason
    return [f"built but not run here: {reason}; its lowered graph was, in onnxruntime{correct}"]


def _read_images(graphs: Prepared) -> list[tuple[str, Images]]:
    compared = [] if graphs.compared is None else [("more calibration", graphs.compared)]
    return [("calibration", graphs.calibration), *compared, ("held-out", graphs.held_out)]


def _skipped(graphs: Prepared) -> list[str]:
    notes = []
    for what, read in _read_images(graphs):
        if read.skipped:
            names = ", ".join(one.id for one in read.skipped[:3]) + (", ..." if len(read.skipped) > 3 else "")
            total = len(read.images) + len(read.skipped)
            notes.append(f"{len(read.skipped)} of {total} {what} images could not be read and were skipped: {names}")
    return notes


def _store(plan: Plan, graphs: Prepared, engine: Assembled, measurement: Measurement, store: Store) -> Bundle:
    files = {
        "portable.onnx": serialize(graphs.portable),
        **engine.files(),
    }
    if graphs.table is not None:
        files["calibration.json"] = encode(graphs.table)
    manifest = Manifest(
        id=plan.inputs.bundle_id,
        inputs=plan.inputs,
        provenance=replace(plan.entry.provenance, origin=Path(plan.entry.provenance.origin).name),
        data=plan.dataset.name,
        engine=engine.engine_name,
        files={name: FileEntry(sha256=digest_of(data), size_bytes=len(data)) for name, data in files.items()},
    )
    return store.put(
        plan.spec.name,
        tag_for(plan.recipe.precision),
        manifest,
        {**files, "measurement.json": encode(measurement)},
    )
