"""qzoo eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import allow_untrusted, as_json, complete_subjects, load_registry, plugin_dirs, which_targets
from qzoo.pipeline.evaluate import Evaluation

if TYPE_CHECKING:
    from qzoo.engine import LoadedEngine
    from qzoo.hookspecs import Dataset
    from qzoo.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalsObject:
    """`qzoo eval --json` of several engines, models or targets, in the order they are named."""

    evaluations: tuple[Evaluation, ...]


@click.command()
@click.argument("subjects", metavar="ENGINE|MODEL...", nargs=-1, required=True, shell_complete=complete_subjects)
@click.option(
    "--data", help="A dataset's name, a directory, or a .csv, .tsv, .npy or .npz file. Default: what it was built on."
)
@click.option("--samples", type=click.IntRange(min=1), help="How many held-out images, drawn by --seed. Default: all.")
@click.option("--seed", default=0, show_default=True, help="Draws --samples, and the network of --weights random.")
@click.option("--weights", default="auto", show_default=True, help="For a MODEL: as of `qzoo build`.")
@which_targets
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of an engine. Default: the runtime's own choice."
)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Processes that decode images. Default: as many as pay off."
)
@click.option("--strict", is_flag=True, help="Fail where an image can't be read, instead of skipping it.")
@allow_untrusted
@plugin_dirs
@as_json
def command(
    subjects: tuple[str, ...],
    data: str | None,
    samples: int | None,
    seed: int,
    weights: str,
    targets: tuple[str, ...],
    threads: int | None,
    workers: int | None,
    strict: bool,  # noqa: FBT001 - click's flags
    allow_untrusted: bool,  # noqa: FBT001
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure accuracy on held-out images: of ENGINEs, and of MODELs' float networks.

    Shows top-1 and top-5, the classes recognized worst and what they are taken for, and images per second.

    \b
    Examples:
      qzoo eval resnet20:int8
      qzoo eval resnet20 resnet20:int8 --target onnxruntime --target openvino
      qzoo eval ./mybundle --data ./photos --json
    """
    from qzoo.cli.progress import shown
    from qzoo.engine import load
    from qzoo.errors import UsageError
    from qzoo.pipeline import Options, make_plan
    from qzoo.pipeline.evaluate import Sampling, evaluate_engine, evaluate_network
    from qzoo.store import Store, names_engine

    engines = [subject for subject in subjects if names_engine(subject)]
    if targets and not engines:
        raise UsageError(
            f"--target {targets[0]} picks one of an engine's, and {subjects[0]} is a model; give its tag too"
        )
    registry, sampling = load_registry(plugin_dirs), Sampling(count=samples, seed=seed, workers=workers, strict=strict)
    found: list[Evaluation] = []
    with shown() as progress:
        for subject in subjects:
            if subject not in engines:
                options = Options(model=subject, precision="fp32", data=data, weights=weights, seed=seed)
                plan = make_plan(options, registry, Store.default().home / "cache", progress)
                found.append(evaluate_network(plan, sampling, progress))
                continue
            for target in targets or (None,):
                engine = load(
                    subject, target=target, plugin_dirs=plugin_dirs, threads=threads, allow_untrusted=allow_untrusted
                )
                found.append(evaluate_engine(engine, _dataset(data, engine, registry), sampling, progress))
    _show(tuple(found), as_json=as_json)


def _show(found: tuple[Evaluation, ...], *, as_json: bool) -> None:
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found[0] if len(found) == 1 else EvalsObject(evaluations=found)), nl=False)
        return
    texts = [_lines(one) for one in found]
    if len(found) > 1:
        texts.append(_comparison(found))
    click.echo("\n\n".join("\n".join(lines) for lines in texts))


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


def _comparison(found: Sequence[Evaluation]) -> list[str]:
    from qzoo.report import aligned

    rows = [("", "top-1", "points", "images/s")]
    for one in found:
        points = 100 * (one.top1.fraction - found[0].top1.fraction)
        top1 = f"{one.top1.fraction:.2%} ({one.top1.correct}/{one.top1.total})"
        rows.append((_name(one), top1, f"{points:+.2f}", f"{one.images_per_second:.1f}"))
    return aligned(rows)


def _name(found: Evaluation) -> str:
    return f"{found.model} {found.precision}" + (f" for {found.target}" if found.target else ", in PyTorch")


def _lines(found: Evaluation) -> list[str]:
    top1, top5 = found.top1, found.top5
    lines = [
        _name(found),
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
