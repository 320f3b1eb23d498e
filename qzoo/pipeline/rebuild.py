"""A bundle's portable graph -> an engine for this machine. Loads no torch."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from qzoo.data.decode import decode_samples
from qzoo.data.preprocess import normalize
from qzoo.data.sampler import choose
from qzoo.errors import UnknownName
from qzoo.graph.contained import check_contained
from qzoo.hookspecs import Dataset
from qzoo.measure import fidelity
from qzoo.pipeline.assemble import Assembled, Facts, assemble, run_reference, serialize
from qzoo.pipeline.departure import find_departure
from qzoo.pipeline.gates import check_engine
from qzoo.pipeline.plan import UNLABELLED_HELD_OUT
from qzoo.pipeline.progress import Progress, Silent
from qzoo.records import FileEntry, Manifest, Measurement, digest_of, encode
from qzoo.registry import Registry
from qzoo.store import Bundle, Reference, Store, tag_for


def rebuild(
    bundle: Bundle,
    registry: Registry,
    store: Store,
    progress: Progress | None = None,
    under: Reference | None = None,
) -> Bundle:
    """Build the engine of `bundle` anew for this machine's version of the same runtime, and verify it.

    Whoever made it needn't be trusted: nothing of it is run but its portable graph, as data. Everything in it is
    checked against its digest first. Accuracy is not measured again; fidelity is, to the portable graph. It is stored
    by the reference `under`, else by the model's name and its precision. Raises IntegrityError, TargetError or
    AccuracyGateError.
    """
    shown = progress or Silent()
    bundle.verify()
    manifest, record = bundle.manifest, bundle.record
    backend = registry.backend(record.target.runtime)
    target = backend.target()
    recipe = manifest.inputs.recipe
    dataset = _dataset(manifest.data, registry)
    samples = choose(dataset, "held-out", UNLABELLED_HELD_OUT, manifest.inputs.seed)
    images = normalize(record.preprocess, decode_samples(dataset, samples, record.preprocess).pixels)
    graph = bundle.path / "portable.onnx"
    portable = ir.from_proto(check_contained(graph.read_bytes(), graph))
    outputs = run_reference(serialize(portable), images)
    facts = Facts(model=record.model, preprocess=record.preprocess, decision=record.decision, labels=record.labels)
    trained = manifest.inputs.weights.kind != "random" and dataset.name == manifest.data
    engine = assemble(portable, recipe, backend, target, facts, images, trained=trained, progress=shown)
    quantization = bundle.measurement.fidelity if recipe.quantized else None
    check_engine(
        engine.engine_fidelity,
        quantization,
        recipe,
        backend.name,
        lambda least: find_departure(engine, recipe, backend, facts, images, least),
    )
    measurement = Measurement(
        target=target,
        verified=engine.verified,
        size_bytes={"float": bundle.measurement.size_bytes["float"], "engine": engine.record.size_bytes},
        latency={},
        accuracy=None,
        fidelity=None
        if engine.ran is None
        else fidelity(outputs, engine.ran.outputs, record.decision, trained=trained),
        export_fidelity=bundle.measurement.export_fidelity,
        engine_fidelity=engine.engine_fidelity,
        lowering_cost_db=None,
        data=dataset.name,
        calibrators=bundle.measurement.calibrators,
        notes=(f"rebuilt from {manifest.id[:12]}'s portable graph; fidelity is to that graph",),
    )
    name, tag = (under or Reference(record.model, tag_for(recipe.precision))).tagged.split(":")
    return store.put(
        name,
        tag,
        _manifest(bundle, engine),
        {**_files(bundle, engine), "measurement.json": encode(measurement)},
        rebuilt=True,
    )


def _dataset(name: str, registry: Registry) -> Dataset:
    """The dataset that the bundle was measured on if this machine has it, else photographs: any images will do."""
    try:
        return registry.dataset(name).open()
    except UnknownName:
        return registry.dataset("photos").open()


def _files(bundle: Bundle, engine: Assembled) -> dict[str, bytes]:
    kept: dict[str, bytes] = {
        name: (bundle.path / name).read_bytes()
        for name in ("portable.onnx", "calibration.json")
        if name in bundle.manifest.files
    }
    return {
        **kept,
        **engine.files(),
    }


def _manifest(bundle: Bundle, engine: Assembled) -> Manifest:
    target = engine.record.target
    old = bundle.manifest
    sdk_versions = {**old.inputs.versions, target.runtime: target.version}
    inputs = replace(old.inputs, target=target, versions=sdk_versions)
    files = {
        name: FileEntry(sha256=digest_of(data), size_bytes=len(data)) for name, data in _files(bundle, engine).items()
    }
    return replace(old, id=inputs.bundle_id, inputs=inputs, engine=engine.engine_name, files=files)
