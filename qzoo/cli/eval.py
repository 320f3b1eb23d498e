"""qzoo eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import as_json, complete_engines, load_registry, plugin_dirs

if TYPE_CHECKING:
    from qzoo.engine import LoadedEngine
    from qzoo.hookspecs import Dataset
    from qzoo.pipeline.evaluate import Evaluation
    from qzoo.registry import Registry


@click.command()
@click.argument("subject", metavar="ENGINE|MODEL", shell_complete=complete_engines)
@click.option(
    "--data", help="A dataset's name, a directory, or a .csv, .tsv, .npy or .npz file. Default: what it was built on."
)
@click.option("--samples", type=click.IntRange(min=1), help="How many held-out images, drawn by --seed. Default: all.")
@click.option("--seed", default=0, show_default=True, help="Draws --samples, and the network of --weights random.")
@click.option("--weights", default="auto", show_default=True, help="For a MODEL: as of `qzoo build`.")
@click.option("--target", help="Which one, where a reference is stored for several. Default: the best that works here.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of an engine. Default: the runtime's own choice."
)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode images. Default: as many as pay off."
)
@click.option("--strict", is_flag=True, help="Fail where an image can't be read, instead of skipping it.")
@plugin_dirs
@as_json
def command(
    subject: str,
    data: str | None,
    samples: int | None,
    seed: int,
    weights: str,
    target: str | None,
    threads: int | None,
    workers: int | None,
    strict: bool,  # noqa: FBT001 - click's flags
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure accuracy on held-out images: of an ENGINE, or of a MODEL's float network.

    Shows top-1 and top-5, the classes recognized worst and what they are taken for, and images per second.

    \b
    Examples:
      qzoo eval resnet20:int8
      qzoo eval resnet20
      qzoo eval ./mybundle --data ./photos --json
    """
    from qzoo.cli.progress import shown
    from qzoo.engine import load
    from qzoo.pipeline import Options, make_plan
    from qzoo.pipeline.evaluate import Sampling, evaluate_engine, evaluate_network
    from qzoo.store import Store, names_engine

    registry, sampling = load_registry(plugin_dirs), Sampling(count=samples, seed=seed, workers=workers, strict=strict)
    if not names_engine(subject):
        options = Options(model=subject, precision="fp32", data=data, weights=weights, seed=seed)
        with shown() as progress:
            plan = make_plan(options, registry, Store.default().home / "cache", progress)
            found = evaluate_network(plan, sampling, progress)
    else:
        engine = load(subject, target=target, plugin_dirs=plugin_dirs, threads=threads)
        dataset = _dataset(data, engine, registry)
        with shown() as progress:
            found = evaluate_engine(engine, dataset, sampling, progress)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
        return
    click.echo("\n".join(_lines(found)))


def _dataset(data: str | None, engine: LoadedEngine, registry: Registry) -> Dataset:
    from qzoo.errors import DataUnavailable, UnknownName, UsageError
    from qzoo.pipeline.datasets import open_dataset
    from qzoo.store import Bundle, Store

    cache = Store.default().home / "cache" / "datasets"
    if data is not None:
        return open_dataset(data, registry, cache)
    try:
        return registry.dataset(Bundle.open(engine.path.parent).manifest.data).open()
    except UnknownName as error:
        raise DataUnavailable("the data that the engine was built on is not known here; give --data") from error
    except UsageError as error:
        raise UsageError(f"{engine.path} lies in no bundle, which would say what data to use; give --data") from error


def _lines(found: Evaluation) -> list[str]:
    top1, top5 = found.top1, found.top5
    lines = [
        f"{found.model} {found.precision}" + (f" for {found.target}" if found.target else ", in PyTorch"),
        f"  data      {found.data}, {top1.total} held-out images",
        f"  top-1     {top1.fraction:.2%} ({top1.correct}/{top1.total})",
    ]
    lines += [f"  top-5     {top5.fraction:.2%} ({top5.correct}/{top5.total})"] if top5 else []
    lines.append(f"  speed     {found.images_per_second:.1f} images/s, decoding left out")
    for one in found.worst_classes:
        taken = f", {one.mistaken} taken for {one.mistaken_for}" if one.mistaken_for else ""
        lines.append(f"  worst     {one.label}: {one.correct}/{one.total}{taken}")
    lines += [f"  skipped   {one.reason}" for one in found.skipped[:5]]
    lines += [f"  skipped   {len(found.skipped) - 5} more"] if len(found.skipped) > 5 else []
    return lines + [f"  note      {note}" for note in found.notes]
