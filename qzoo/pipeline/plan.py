"""Decides what a build will do, from its options alone: target, recipe, weights, samples, and the bundle's id.

Nothing here loads torch or runs a network, so that an identical second build is found in the store at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from qzoo import weights as weights_module
from qzoo.data.labels import imagenet_labels, read_labels
from qzoo.data.sampler import choose, choose_apart, sample_list_digest
from qzoo.errors import DataUnavailable, TargetUnavailable, UnknownName, UsageError
from qzoo.hookspecs import Backend, Dataset, Sample
from qzoo.pipeline.datasets import open_dataset
from qzoo.pipeline.progress import Progress, Silent
from qzoo.records import BuildInputs, Target
from qzoo.registry import ModelEntry, Registry, source_digest
from qzoo.spec import (
    AUTO,
    PRECISIONS,
    TRAINED,
    BatchProfile,
    BuilderSettings,
    ModelSpec,
    Placement,
    Precision,
    Recipe,
    with_overrides,
)

MAX_HELD_OUT = 512
"""Held-out images used to evaluate, at most; enough for 0.2 points on a good classifier's accuracy."""
UNLABELLED_HELD_OUT = 64
MIN_CALIBRATION = 8
"""Fewer samples than this can't show an activation's range."""
COMPARE = "all"
"""`--calib all`: the recipe's own calibrator, and a report on all of them."""
COMPARED = 64
"""Calibration images beside the histogram's that calibrators are compared on, at most."""

Autotune = Literal["quick", "full"]

_SHAPE_THE_BYTES = (
    "qzoo",
    "torch",
    "torchvision",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "numpy",
    "pillow",
    "pytorch-quantization",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller asks for. None means: as the model's recipe says."""

    model: str
    precision: Precision = "int8"
    target: str = "auto"
    weights: str = "auto"
    data: str | None = None
    labels: Path | None = None
    calibrator: str | None = None
    calib_samples: int = 64
    placement: Placement | None = None
    weight_bits: int | None = None
    qat_epochs: int = 0
    batch_size: int = 1
    batch: BatchProfile | None = None  # instead of batch_size
    builder: BuilderSettings | None = None
    timing_cache: Path | None = None  # TensorRT's or autotune's: read if it is there, written after
    autotune: Autotune | None = None
    max_drop: float | None = None
    seed: int = 0
    workers: int | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A build, decided but not begun."""

    entry: ModelEntry
    backend: Backend
    target: Target
    reason: str
    recipe: Recipe
    weights: weights_module.WeightsPlan
    dataset: Dataset
    calibration: tuple[Sample, ...]
    compared: tuple[Sample, ...]  # other calibration images, where calibrators are compared on them
    held_out: tuple[Sample, ...]
    inputs: BuildInputs
    notes: tuple[str, ...]
    workers: int | None
    strict: bool
    image_cache: Path
    timing_cache: Path | None
    plugin_dirs: tuple[Path, ...]

    @property
    def spec(self) -> ModelSpec:
        return self.entry.spec

    @property
    def trained(self) -> bool:
        """Whether the weights mean anything: random ones have latency, but no accuracy."""
        return self.weights.record.kind != "random"


def make_plan(options: Options, registry: Registry, cache: Path, progress: Progress | None = None) -> Plan:
    """Decide a build; weights that aren't at hand are downloaded into `cache`, where decoded images are kept too.

    Raises UsageError, UnavailableError, TargetError or PluginError.
    """
    if options.precision not in PRECISIONS:
        raise UnknownName("precision", options.precision, PRECISIONS)
    if options.calib_samples < MIN_CALIBRATION:
        raise UsageError(
            f"--calib-samples {options.calib_samples}: calibration needs at least {MIN_CALIBRATION} samples"
        )
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers {options.workers}: give 0 to decode in this process, or a number of processes")
    _check_qat(options)
    _check_comparison(options)
    entry = registry.model(options.model)
    backend, reason = choose_backend(options.target, registry)
    backend.check_precision(options.precision)
    backend.check_builder(options.builder or BuilderSettings())
    hardware = options.target.partition("/")[2]
    target = backend.target_for(hardware) if hardware else backend.target()
    dataset = open_dataset(options.data or entry.spec.data, registry, cache / "datasets")
    weights = weights_module.plan(
        entry.spec, options.weights, options.seed, cache / "weights", _Download(progress or Silent())
    )
    recipe = _recipe(entry.spec, backend, options, weights_module.trained_by(weights))
    calibration, compared = _calibration_samples(dataset, recipe, options)
    labelled = bool(calibration[0].label is not None)
    held_out = choose(dataset, "held-out", MAX_HELD_OUT if labelled else UNLABELLED_HELD_OUT, options.seed)
    _check_classes(dataset, (*calibration, *compared, *held_out), weights.record.num_classes, entry.spec)
    labels = _labels(options.labels, dataset, weights.record.num_classes)
    return Plan(
        entry=entry,
        backend=backend,
        target=target,
        reason=reason,
        recipe=recipe,
        weights=weights,
        dataset=dataset,
        calibration=calibration,
        compared=compared,
        held_out=held_out,
        inputs=BuildInputs(
            model=entry.spec.name,
            plugin_version=entry.spec.version,
            plugin_source_sha256=source_digest(entry.provenance),
            recipe=recipe,
            weights=weights.record,
            sample_list_sha256=_sample_list(dataset, recipe, calibration, compared),
            held_out_list_sha256=sample_list_digest(held_out),
            labels=labels,
            target=target,
            versions={**_versions(), backend.sdk: target.version},
            seed=options.seed,
        ),
        notes=_notes(options, dataset, calibration, weights.record.kind),
        workers=options.workers,
        strict=options.strict,
        image_cache=cache / "images",
        timing_cache=options.timing_cache,
        plugin_dirs=registry.plugin_dirs,
    )


def choose_backend(wanted: str, registry: Registry) -> tuple[Backend, str]:
    """The backend that `--target` names, and why it. `auto`: the first of `Registry.preferred` that works.

    `wanted` may be a runtime or a whole target, "openvino/avx512_vnni+bf16". Raises UnknownName or TargetUnavailable.
    """
    if wanted != "auto":
        return _working(registry.backend(wanted.partition("/")[0])), "asked for"
    passed_over: list[str] = []
    for backend in registry.preferred():
        probe = backend.probe()
        if probe.works:
            return backend, f"auto: {backend.name} works here" + "".join(f"; {other}" for other in passed_over)
        passed_over.append(f"{backend.name}: {probe.reason}")
    raise TargetUnavailable(
        f"no target works here ({'; '.join(passed_over) or 'none is installed'}); see `qzoo doctor`"
    )


def _working(backend: Backend) -> Backend:
    probe = backend.probe()
    if not (probe.works or probe.builds):
        raise TargetUnavailable(f"target {backend.name} doesn't work here: {probe.reason}")
    return backend


class _Download:
    """Shows a download as a stage, in bytes."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._done = progress, 0

    def __call__(self, done: int, total: int | None) -> None:
        if self._done == 0:
            self._progress.stage("downloading weights", total)
        self._progress.advance(done - self._done)
        self._done = done


def _recipe(spec: ModelSpec, backend: Backend, options: Options, trained: weights_module.TrainedBy) -> Recipe:
    """The model's recipe as the options and what the weights were trained for change it. Raises UsageError."""
    recipe = spec.recipe(backend.name, options.precision, backend.roles)
    tolerances = recipe.tolerances
    if options.max_drop is not None:
        if not options.max_drop >= 0:
            raise UsageError(f"--max-drop {options.max_drop}: give accuracy points, 0 or more")
        tolerances = replace(tolerances, max_drop=options.max_drop)
    batch = options.batch or BatchProfile(min=1, opt=options.batch_size, max=max(options.batch_size, recipe.batch.max))
    bits, placement = options.weight_bits, options.placement
    if trained.ranges and (bits or trained.weight_bits) != trained.weight_bits:
        raise UsageError(f"--weight-bits {bits}: the weights were trained for {trained.weight_bits}; leave it out")
    placed = trained.placement or recipe.placement
    if trained.ranges and placement not in (None, placed):
        raise UsageError(f"--placement {placement}: the weights were trained for {placed}; leave it out")
    calibrator = None if options.calibrator == COMPARE else options.calibrator
    if trained.ranges and options.calibrator == COMPARE:
        raise UsageError(
            f"--calib {COMPARE}: the weights bring ranges of their own, which nothing calibrates; leave it out, or "
            f"give --calib {AUTO} to calibrate them anew"
        )
    return with_overrides(
        recipe,
        calibrator=calibrator or (TRAINED if trained.ranges else None),
        placement=placement or trained.placement,
        weight_bits=bits or (trained.weight_bits if trained.ranges else None),
        qat=spec.training.for_qat(options.qat_epochs) if options.qat_epochs else None,
        tolerances=tolerances,
        batch=batch,
        builder=options.builder or BuilderSettings(),
    )


def _calibration_samples(
    dataset: Dataset, recipe: Recipe, options: Options
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What calibrates, and where calibrators are compared what they are compared on. Raises DataUnavailable."""
    asked = options.calibrator == COMPARE or options.autotune is not None
    comparing = recipe.quantized and (recipe.calibrator == AUTO or asked)
    calibration, compared = choose_apart(
        dataset, "calibration", options.calib_samples, COMPARED if comparing else 0, options.seed
    )
    if len(calibration) < MIN_CALIBRATION:
        raise DataUnavailable(
            f"dataset {dataset.name!r} has {len(calibration)} calibration images; at least {MIN_CALIBRATION} are needed"
        )
    if comparing and len(compared) < MIN_CALIBRATION:
        raise DataUnavailable(
            f"dataset {dataset.name!r} has {len(compared)} calibration images beside the {len(calibration)} that "
            f"calibrate; {_comparing(recipe, options)} compares on at least {MIN_CALIBRATION}: give a smaller "
            "--calib-samples"
        )
    return calibration, compared


def _comparing(recipe: Recipe, options: Options) -> str:
    return "--autotune" if options.autotune else f"--calib {options.calibrator or recipe.calibrator}"


def _sample_list(
    dataset: Dataset, recipe: Recipe, calibration: tuple[Sample, ...], compared: tuple[Sample, ...]
) -> str:
    """The digest of every sample that has a say in the bundle's bytes; fine-tuning reads the whole split."""
    chosen_by = compared if recipe.calibrator == AUTO else ()
    trained_on = () if recipe.qat is None else dataset.samples("calibration")
    return sample_list_digest((*calibration, *chosen_by, *trained_on))


def _check_comparison(options: Options) -> None:
    if options.calibrator not in (AUTO, COMPARE):
        return
    if options.precision not in ("int8", "int8+fp16"):
        raise UsageError(f"--calib {options.calibrator} compares quantized networks; {options.precision} has none")
    if options.calibrator == COMPARE and options.qat_epochs:
        raise UsageError(
            f"--calib {COMPARE} reports on calibrated networks, but --qat-epochs builds a fine-tuned one; give "
            f"--calib {AUTO} to begin from the best"
        )


def _check_qat(options: Options) -> None:
    if options.qat_epochs < 0:
        raise UsageError(f"--qat-epochs {options.qat_epochs}: give a number of epochs, 0 for none")
    if options.qat_epochs and options.precision not in ("int8", "int8+fp16"):
        raise UsageError(f"--qat-epochs needs an INT8 precision, not {options.precision}")
    if options.qat_epochs and options.weights == "random":
        raise UsageError("--qat-epochs fine-tunes trained weights; give --weights, or train them with `qzoo train`")


def _check_classes(dataset: Dataset, samples: Sequence[Sample], num_classes: int, spec: ModelSpec) -> None:
    labels = {sample.label for sample in samples if sample.label is not None}
    if dataset.classes is not None:
        found, fits = f"{len(dataset.classes)} classes", len(dataset.classes) == num_classes
    else:
        found, fits = f"labels up to {max(labels, default=0)}", labels <= {*range(num_classes)}
    if not fits:
        raise DataUnavailable(
            f"dataset {dataset.name!r} has {found}, but {spec.name}'s weights have {num_classes} classes (read from "
            f"{spec.head}); give --data with the same classes"
        )


def _labels(path: Path | None, dataset: Dataset, num_classes: int) -> tuple[str, ...]:
    if path is not None:
        labels = read_labels(path)
        if len(labels) != num_classes:
            raise UsageError(f"--labels {path} names {len(labels)} classes, the weights have {num_classes}")
        return labels
    if dataset.classes is not None:
        return dataset.classes
    imagenet = imagenet_labels()
    return imagenet if len(imagenet) == num_classes else tuple(str(index) for index in range(num_classes))


def _notes(options: Options, dataset: Dataset, calibration: Sequence[Sample], kind: str) -> tuple[str, ...]:
    notes = []
    if kind == "random":
        notes.append("random weights: latency and size mean something, accuracy does not")
    if calibration[0].label is None:
        notes.append(f"accuracy was not measured: {dataset.name} carries no labels")
    if len(calibration) < options.calib_samples:
        notes.append(f"calibrated on {len(calibration)} samples: {dataset.name} has no more")
    return tuple(notes)


@lru_cache(maxsize=1)
def _versions() -> Mapping[str, str]:
    return {name: _version(name) for name in _SHAPE_THE_BYTES}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
