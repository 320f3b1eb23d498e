"""train(): a network trained on a dataset, float or with fake quantization, its weights and its state in a directory.

<out>/best.safetensors        the epoch with the best validation accuracy, written anew when there is a better one
<out>/checkpoint.safetensors  the state after the last epoch, for --resume
<out>/history.json, curve.png what each epoch gave
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch import nn

from qzoo import weights as weights_module
from qzoo.errors import DataUnavailable, TrainingDiverged, UsageError, WeightsMismatch
from qzoo.pipeline.calibrators import calibrate_plan
from qzoo.pipeline.datasets import open_dataset
from qzoo.pipeline.forward import few
from qzoo.pipeline.images import read_calibration
from qzoo.pipeline.network import load_network, load_ranges, make_network
from qzoo.pipeline.plan import COMPARE, Options, make_plan
from qzoo.pipeline.progress import Progress
from qzoo.pipeline.training_data import TrainingData
from qzoo.quant.calibrate import apply_table
from qzoo.quant.insert import insert_quantizers
from qzoo.records import Accuracy, CalibrationTable, decode, encode
from qzoo.registry import ModelEntry, Registry
from qzoo.report.curve import curve_png
from qzoo.report.objects import TrainedObject
from qzoo.spec import TRAINED, Placement, Training
from qzoo.store import Bundle, Store, locate, names_engine, write_file
from qzoo.train.checkpoint import Checkpoint, read_checkpoint, weights_file
from qzoo.train.fit import Job, fit, score
from qzoo.train.images import LabelledImages
from qzoo.train.parallel import World

VALIDATION = 0.1
"""The share of the training images that chooses the best epoch; held-out images never do."""
BEST, STATE = "best.safetensors", "checkpoint.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What the caller asks for. None means: as the run that is resumed, or as the model's spec says."""

    model: str
    data: str | None = None
    qat: bool | None = None
    learn_amax: bool | None = None
    weights: str | None = None
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    seed: int | None = None
    validation: float | None = None
    target: str | None = None
    calibrator: str | None = None
    calib_samples: int | None = None
    placement: Placement | None = None
    weight_bits: int | None = None
    resume: Path | None = None
    out: Path | None = None
    workers: int | None = None
    strict: bool = False
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that decides the trained weights, resolved. It is kept in every checkpoint; --resume holds to it."""

    model: str
    plugin_version: str
    data: str
    qat: bool
    weights: str
    seed: int
    validation: float
    training: Training
    target: str
    calibrator: str | None
    calib_samples: int
    placement: Placement | None
    weight_bits: int | None


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A network to train; the run with what its weights decided; and the held-out accuracies measured before."""

    network: nn.Module
    run: Run
    before: dict[str, Accuracy]


def train(
    options: TrainOptions, registry: Registry, store: Store, progress: Progress, world: World | None = None
) -> TrainedObject:
    """Train a model's network, and write what the module's docstring lists.

    With `options.qat` its quantizers are inserted and calibrated first (or take the ranges of the bundle or the
    checkpoint that `weights` names), and it is trained with fake quantization. Raises UsageError, UnavailableError,
    PluginError or TrainingDiverged.
    """
    team, device = world or World(), _device(options.device)
    entry = registry.model(options.model)
    start = None if options.resume is None else read_checkpoint(_state_file(options.resume))
    run = _new_run(options, entry, store) if start is None else _resumed_run(options, entry, start)
    out = _out(options)
    data = TrainingData(
        dataset=open_dataset(run.data, registry, store.home / "cache" / "datasets"),
        spec=entry.spec,
        workers=options.workers,
        strict=options.strict,
        cache=store.home / "cache" / "images",
        progress=progress,
    )
    images, validation = data.to_train(run.validation, run.seed)
    held_out = data.held_out()
    begun = _begin(run, entry, data, registry, store, held_out)
    network, run = begun.network.to(device), begun.run
    job = Job(
        training=run.training,
        images=images,
        validation=validation,
        decision=entry.spec.decision,
        seed=run.seed,
        run=asdict(run),
    )

    def shown(epoch: int) -> Progress:
        progress.stage(f"epoch {epoch}/{run.training.epochs}", job.steps)
        return progress

    def keep(state: Checkpoint) -> None:
        _keep(out, state)

    try:
        final = fit(network, job, world=team, shown=shown, keep=keep, start=start)
    except TrainingDiverged as error:
        raise TrainingDiverged(f"{error} (the run is in {out})") from error
    progress.stage("held-out images")
    return TrainedObject(
        model=run.model,
        data=run.data,
        qat=run.qat,
        images=len(images),
        validation_images=0 if validation is None else len(validation),
        history=final.history,
        best_epoch=final.best_epoch,
        held_out=score(network, held_out, entry.spec.decision),
        float=begun.before.get("float"),
        calibrated=begun.before.get("calibrated"),
        weights=str(out / BEST),
        checkpoint=str(out / STATE),
        curve=str(out / "curve.png"),
    )


# --- what to train


def _new_run(options: TrainOptions, entry: ModelEntry, store: Store) -> Run:
    spec, qat = entry.spec, bool(options.qat)
    if options.learn_amax and not qat:
        raise UsageError("--learn-amax trains quantizers' ranges, which only --qat has")
    if qat and options.calibrator and options.weights and _bundle(options.weights, store):
        raise UsageError(
            f"--calib {options.calibrator}: ranges are taken from the bundle {options.weights}; leave out one of them"
        )
    if options.calibrator == COMPARE:
        raise UsageError(
            f"--calib {COMPARE} reports on the calibrators of one build; `qzoo train` takes one of them, or auto"
        )
    base = spec.training.for_qat() if qat else spec.training
    training = replace(
        base,
        learn_amax=bool(options.learn_amax),
        epochs=base.epochs if options.epochs is None else options.epochs,
        lr=base.lr if options.lr is None else options.lr,
        batch_size=base.batch_size if options.batch_size is None else options.batch_size,
    )
    return Run(
        model=spec.name,
        plugin_version=spec.version,
        data=options.data or spec.data,
        qat=qat,
        weights=options.weights or ("auto" if qat else "random"),
        seed=options.seed or 0,
        validation=VALIDATION if options.validation is None else options.validation,
        training=training,
        target=options.target or "auto",
        calibrator=options.calibrator,
        calib_samples=options.calib_samples or 64,
        placement=options.placement,
        weight_bits=options.weight_bits,
    )


def _resumed_run(options: TrainOptions, entry: ModelEntry, start: Checkpoint) -> Run:
    """The run that a checkpoint is of. Raises WeightsMismatch for another model's, UsageError for other settings."""
    kept = dict(start.run)
    if kept.get("model") != entry.spec.name:
        raise WeightsMismatch(f"{options.resume} is a checkpoint of {kept.get('model')}, not of {entry.spec.name}")
    if kept.get("plugin_version") != entry.spec.version:
        raise WeightsMismatch(
            f"{options.resume} was trained with version {kept.get('plugin_version')} of {entry.spec.name}'s plugin, "
            f"this is {entry.spec.version}; train anew"
        )
    run = msgspec.convert(kept, Run)
    settings = {**asdict(run), **asdict(run.training)}
    for name, value in asdict(options).items():
        if name in settings and value is not None and value != settings[name]:
            raise UsageError(
                f"--{name.replace('_', '-')} {value}: the run that is resumed has {settings[name]}; leave it out, or "
                "begin a new run"
            )
    return run


def _state_file(resume: Path) -> Path:
    path = resume.expanduser()
    path = path / STATE if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"--resume {resume}: there is no checkpoint; give a run's directory or its {STATE}")
    return path


def _out(options: TrainOptions) -> Path:
    """Where the run is written. Raises UsageError rather than overwrite another run."""
    if options.resume is not None:
        return options.out or _state_file(options.resume).resolve().parent
    out = (options.out or Path(f"{options.model.replace('/', '-')}-training")).expanduser().resolve()
    if (out / STATE).exists():
        raise UsageError(f"{out} holds a run; go on with --resume {out}, or give another --out")
    return out


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: PyTorch finds no CUDA GPU here; leave it out, or give cpu")
    return torch.device(name)


# --- the network


def _begin(
    run: Run, entry: ModelEntry, data: TrainingData, registry: Registry, store: Store, held_out: LabelledImages
) -> _Begun:
    if run.qat:
        return _calibrated(run, entry, data, registry, store, held_out)
    spec = entry.spec
    if run.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            return _Begun(network=make_network(spec, data.classes()), run=run, before={})
    plan = weights_module.plan(spec, run.weights, run.seed, store.home / "cache" / "weights")
    if plan.record.num_classes != data.classes():
        raise DataUnavailable(
            f"dataset {data.dataset.name!r} has {data.classes()} classes, but {run.weights} has "
            f"{plan.record.num_classes} (read from {spec.head}); give --data with the same classes"
        )
    network = load_network(spec, plan, torch.zeros(1, *spec.input.shape)).network
    return _Begun(network=network, run=run, before={})


def _calibrated(
    run: Run, entry: ModelEntry, data: TrainingData, registry: Registry, store: Store, held_out: LabelledImages
) -> _Begun:
    bundle = _bundle(run.weights, store)
    options = Options(
        model=run.model,
        target=run.target,
        weights=run.weights if bundle is None else _weights_of(bundle),
        data=run.data,
        calibrator=run.calibrator,
        calib_samples=run.calib_samples,
        placement=run.placement if bundle is None else bundle.manifest.inputs.recipe.placement,
        weight_bits=run.weight_bits,
        seed=run.seed,
        workers=data.workers,
        strict=data.strict,
    )
    plan = make_plan(options, registry, store.home / "cache", data.progress)
    if bundle is not None and plan.weights.record.sha256 != bundle.manifest.inputs.weights.sha256:
        raise WeightsMismatch(
            f"{run.weights} was built from weights sha256:{bundle.manifest.inputs.weights.sha256}, but those at hand "
            f"are sha256:{plan.weights.record.sha256}; give the file with --weights"
        )
    images = read_calibration(plan, data.progress)
    loaded = load_network(entry.spec, plan.weights, few(images))
    before = {"float": score(loaded.network, held_out, entry.spec.decision)}
    quantized = insert_quantizers(loaded.network, entry.spec, plan.recipe, trainable=True)
    if plan.recipe.calibrator == TRAINED:
        load_ranges(quantized, loaded.ranges, plan.weights)
    elif bundle is not None:
        path = bundle.path / "calibration.json"
        apply_table(quantized, decode(path.read_bytes(), CalibrationTable, path))
    else:
        calibrate_plan(quantized, loaded.network, plan, images, data.progress)
    before["calibrated"] = score(quantized, held_out, entry.spec.decision)
    recipe = plan.recipe
    decided = replace(run, calibrator=recipe.calibrator, placement=recipe.placement, weight_bits=recipe.weight_bits)
    return _Begun(network=quantized, run=decided, before=before)


def _bundle(weights: str, store: Store) -> Bundle | None:
    """The bundle that --weights names; None where it names weights."""
    path = Path(weights).expanduser()
    if path.is_file() or not names_engine(weights):
        return None
    bundle = Bundle.open(locate(weights, store, None, ("openvino", "onnxruntime")).path.parent)
    if not bundle.manifest.inputs.recipe.quantized:
        raise UsageError(f"--weights {weights}: a {bundle.manifest.inputs.recipe.precision} bundle has no calibration")
    return bundle


def _weights_of(bundle: Bundle) -> str:
    record = bundle.manifest.inputs.weights
    if record.kind == "file":
        raise UsageError(
            f"{bundle.path} was built from {record.ref}, which a bundle doesn't hold; give that file with --weights"
        )
    return "random" if record.kind == "random" else "auto"


# --- what is written


def _keep(out: Path, state: Checkpoint) -> None:
    if state.best_epoch == len(state.history):
        write_file(out / BEST, weights_file(state.best, state.run))
    write_file(out / "history.json", encode(state.history))
    write_file(out / "curve.png", curve_png(state.history, str(state.run["model"])))
    write_file(out / STATE, state.serialized())  # last: from here on the epoch is done
