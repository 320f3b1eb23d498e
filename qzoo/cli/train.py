"""qzoo train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import as_json, complete_models, load_registry, plugin_dirs

if TYPE_CHECKING:
    from qzoo.records import Accuracy
    from qzoo.report.objects import TrainedObject
    from qzoo.spec import Placement


@click.command()
@click.argument("model", shell_complete=complete_models)
@click.option("--data", help="A dataset's name, a directory, or a .csv, .tsv or .npz file. Default: the model's own.")
@click.option("--qat/--float", default=None, help="Train with fake quantization, from a calibrated model; or float.")
@click.option("--learn-amax", is_flag=True, default=None, help="With --qat: train the quantizers' ranges too.")
@click.option(
    "--weights",
    help="What to start from: 'auto', 'random', a file, or with --qat a bundle. Default: random; with --qat, auto.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Default: the model's own; with --qat a tenth of them.")
@click.option("--lr", type=float, help="The peak learning rate. Default: the model's own; with --qat a tenth of it.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images a step, of all processes together.")
@click.option("--seed", type=int, help="Decides initial weights, order, augmentation, and what validates. Default: 0.")
@click.option("--validation", type=float, help="The share of the images that chooses the best epoch. Default: 0.1.")
@click.option("--target", help="With --qat: whose recipe says what is kept in float. Default: auto.")
@click.option("--calib", "calibrator", metavar="NAME[:ARG]", help="With --qat: as of `qzoo build`, but not all.")
@click.option("--calib-samples", type=click.IntRange(min=1), help="With --qat: images to calibrate on. Default: 64.")
@click.option("--placement", type=click.Choice(("auto", "manual")), help="With --qat: as of `qzoo build`.")
@click.option("--weight-bits", type=click.IntRange(2, 8), help="With --qat: bits of the weights' integers. Default: 8.")
@click.option(
    "--resume", type=click.Path(path_type=Path), help="Go on with a run: its directory, or its checkpoint.safetensors."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where to write. Default: ./MODEL-training.")
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode images. Default: as many as pay off."
)
@click.option("--strict", is_flag=True, help="Fail where an image can't be read, instead of skipping it.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU if PyTorch finds one.")
@plugin_dirs
@as_json
def command(
    model: str,
    data: str | None,
    qat: bool | None,  # noqa: FBT001 - click's flags
    learn_amax: bool | None,  # noqa: FBT001
    weights: str | None,
    epochs: int | None,
    lr: float | None,
    batch_size: int | None,
    seed: int | None,
    validation: float | None,
    target: str | None,
    calibrator: str | None,
    calib_samples: int | None,
    placement: Placement | None,
    weight_bits: int | None,
    resume: Path | None,
    out: Path | None,
    workers: int | None,
    strict: bool,  # noqa: FBT001
    device: str,
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Train MODEL on a dataset: float, or with --qat fine-tune it with fake quantization.

    Writes best.safetensors (for `qzoo build --weights`), checkpoint.safetensors (for --resume), history.json and
    curve.png. Under torchrun it trains data-parallel.

    \b
    Examples:
      qzoo train resnet20 --data digits
      qzoo train resnet20 --qat --epochs 5 --weight-bits 4
      qzoo train resnet20 --qat --weights resnet20:int8 --learn-amax
      qzoo train resnet20 --resume resnet20-training
    """
    from qzoo.cli.progress import shown
    from qzoo.pipeline.progress import Silent
    from qzoo.pipeline.training import TrainOptions, train
    from qzoo.store import Store
    from qzoo.train.parallel import joined

    options = TrainOptions(
        model=model,
        data=data,
        qat=qat,
        learn_amax=learn_amax,
        weights=weights,
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        seed=seed,
        validation=validation,
        target=target,
        calibrator=calibrator,
        calib_samples=calib_samples,
        placement=placement,
        weight_bits=weight_bits,
        resume=resume,
        out=out,
        workers=workers,
        strict=strict,
        device=device,
    )
    with joined() as world, shown() as progress:
        reported = progress if world.first else Silent()
        found = train(options, load_registry(plugin_dirs), Store.default(), reported, world)
    if not world.first:
        return
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
        return
    click.echo("\n".join(_lines(found)))


def _lines(found: TrainedObject) -> list[str]:
    kind = "fine-tuned with fake quantization" if found.qat else "trained"
    validated = f", {found.validation_images} validate" if found.validation_images else ""
    best = found.history[found.best_epoch - 1]
    lines = [f"{found.model} {kind} on {found.data}: {found.images} images{validated}, {len(found.history)} epochs"]
    lines += [f"  float        {_accuracy(found.float)} held-out"] if found.float else []
    lines += [f"  calibrated   {_accuracy(found.calibrated)} held-out"] if found.calibrated else []
    shown = f", validation {_accuracy(best.validation)}" if best.validation else ""
    lines += [
        f"  best         epoch {best.epoch}: loss {best.loss:.4f}{shown}",
        f"  held-out     {_accuracy(found.held_out)}",
        f"  weights      {found.weights}",
        f"  curve        {found.curve}",
        f"  build it     qzoo build {found.model} --int8 --weights {found.weights}",
    ]
    return lines


def _accuracy(found: Accuracy) -> str:
    return f"{found.correct}/{found.total} ({found.fraction:.2%})"
