"""What `--json` prints of a build or an engine. docs/schema/ describes each, made from these classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from qzoo.errors import IntegrityError
from qzoo.provenance import Provenance
from qzoo.records import (
    Accuracy,
    CalibratorTrial,
    Candidate,
    EngineRecord,
    EpochRecord,
    Fidelity,
    LayerTable,
    Manifest,
    Measurement,
    Skipped,
    Verified,
    WeightsRecord,
)
from qzoo.spec import ModelSpec, Precision, Recipe
from qzoo.store import MEASUREMENT, Bundle, EngineFile, Entry, Store

Fraction = float  # a field below is itself called float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationObject:
    """How an engine was calibrated, and the hash of the list of samples.

    `compared` has the figures of each calibrator with --calib auto or all, and says which one was chosen.
    """

    calibrator: str
    sample_list_sha256: str
    compared: tuple[CalibratorTrial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyObject:
    """Top-1 of the float network and of the engine: fractions, and the images they are counted over."""

    float: Fraction
    engine: Fraction
    float_correct: int
    engine_correct: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildObject:
    """`qzoo build --json` of one model and target. Paths are absolute, sizes bytes, latencies median milliseconds.

    `latency_ms` has "float" (the same runtime's fp32 engine), "engine", and each precision that was measured.
    """

    model: str
    precision: Precision
    target: str
    reason: str
    bundle: str
    id: str
    engine: str
    cached: bool
    weights: WeightsRecord
    calibration: CalibrationObject | None
    size_bytes: dict[Literal["float", "engine"], int | None]
    latency_ms: dict[str, float | None] | None
    accuracy: AccuracyObject | None
    fidelity: Fidelity | None
    engine_fidelity: Fidelity | None
    lowering_cost_db: float | None
    verified: Verified
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildsObject:
    """`qzoo build --json` of several models or targets."""

    builds: tuple[BuildObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanObject:
    """`qzoo build --dry-run --json` of one model and target."""

    model: str
    target: str
    reason: str
    id: str
    recipe: Recipe
    weights: WeightsRecord
    calibration_samples: int
    held_out_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlansObject:
    """`qzoo build --dry-run --json` of several models or targets."""

    builds: tuple[PlanObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelObject:
    """`qzoo info MODEL --json`. `modules` are (path, class) pairs, with `--modules`."""

    spec: ModelSpec
    provenance: Provenance
    modules: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineObject:
    """`qzoo info ENGINE --json`. An engine file that lies alone has no manifest and no measurement.

    `layers` is given with --layers.
    """

    engine: str
    record: EngineRecord
    manifest: Manifest | None
    measurement: Measurement | None
    layers: LayerTable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One stored bundle, in `qzoo store ls --json`. Sizes in bytes, latencies median milliseconds, times in UTC.

    `reference` with `@` and `digest` names just this one. Of a bundle that is damaged, what can't be read is null, and
    `damage` says why. `size_bytes.bundle` is of all its files, some of which it may share with others.
    """

    reference: str
    target: str
    digest: str
    id: str
    damage: str | None = None
    bundle: str | None = None
    stored: str | None = None
    size_bytes: dict[Literal["float", "engine", "bundle"], int | None] | None = None
    latency_ms: dict[str, float | None] | None = None
    accuracy: AccuracyObject | None = None
    verified: Verified | None = None


def stored_object(entry: Entry, store: Store) -> StoredObject:
    """What `qzoo store ls --json` prints of one bundle."""
    named = StoredObject(reference=entry.name, target=entry.target, digest=f"sha256:{entry.sha256}", id=entry.id)
    try:
        bundle = store.open(entry)
        measured = bundle.measurement
    except IntegrityError as error:
        return replace(named, damage=str(error))
    sizes: dict[Literal["float", "engine", "bundle"], int | None] = {
        "float": measured.size_bytes["float"],
        "engine": measured.size_bytes["engine"],
        "bundle": sum(file.stat().st_size for file in bundle.path.iterdir()),
    }
    written = (bundle.path / MEASUREMENT).stat().st_mtime
    return replace(
        named,
        bundle=str(bundle.path),
        stored=datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds"),
        size_bytes=sizes,
        latency_ms=_latencies(measured, bundle.manifest.inputs.recipe.precision),
        accuracy=_accuracy(measured),
        verified=measured.verified,
    )


def engine_object(file: EngineFile, layers: LayerTable | None = None) -> EngineObject:
    """What `qzoo info --json` prints of an engine."""
    bundle = file.bundle
    return EngineObject(
        engine=str(file.path),
        record=file.record,
        manifest=None if bundle is None else bundle.manifest,
        measurement=None if bundle is None else bundle.measurement,
        layers=layers,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedObject:
    """`qzoo train --json`. Accuracies on the held-out images: `float` and `calibrated` before, with --qat."""

    model: str
    data: str
    qat: bool
    images: int
    validation_images: int
    history: tuple[EpochRecord, ...]
    best_epoch: int
    held_out: Accuracy
    float: Accuracy | None
    calibrated: Accuracy | None
    weights: str
    checkpoint: str
    curve: str


def build_object(bundle: Bundle, *, cached: bool, reason: str) -> BuildObject:
    """What `qzoo build --json` prints for one bundle."""
    manifest, measured = bundle.manifest, bundle.measurement
    inputs = manifest.inputs
    calibration = CalibrationObject(
        calibrator=inputs.recipe.calibrator,
        sample_list_sha256=inputs.sample_list_sha256,
        compared=measured.calibrators,
    )
    return BuildObject(
        model=inputs.model,
        precision=inputs.recipe.precision,
        target=str(measured.target),
        reason=reason,
        bundle=str(bundle.path),
        id=manifest.id,
        engine=str(bundle.engine),
        cached=cached,
        weights=inputs.weights,
        calibration=calibration if inputs.recipe.quantized else None,
        size_bytes=measured.size_bytes,
        latency_ms=_latencies(measured, inputs.recipe.precision),
        accuracy=_accuracy(measured),
        fidelity=measured.fidelity,
        engine_fidelity=measured.engine_fidelity,
        lowering_cost_db=measured.lowering_cost_db,
        verified=measured.verified,
        candidates=measured.candidates,
        notes=measured.notes,
        skipped=measured.skipped,
    )


def _accuracy(measured: Measurement) -> AccuracyObject | None:
    if measured.accuracy is None:
        return None
    before, after = measured.accuracy["float"], measured.accuracy["engine"]
    return AccuracyObject(
        float=before.fraction,
        engine=after.fraction,
        float_correct=before.correct,
        engine_correct=after.correct,
        total=after.total,
    )


def _latencies(measured: Measurement, precision: str) -> dict[str, float | None] | None:
    if not measured.latency:
        return None
    medians = {name: latency.median_ms for name, latency in measured.latency.items()}
    return {"float": medians.get("fp32"), "engine": medians[precision], **medians}
