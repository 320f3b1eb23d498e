"""qzoo run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from qzoo.cli.options import allow_untrusted, as_json, complete_engines, load_registry, plugin_dirs, which_target
from qzoo.engine import Guess, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """An image and its most probable classes, the first the most probable."""

    image: str
    classes: tuple[Guess, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunObject:
    """`qzoo run --json`."""

    engine: str
    results: tuple[Classified, ...]


@click.command()
@click.argument("engine", shell_complete=complete_engines)
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@which_target
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1), help="Classes to show per image.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: the runtime's own choice.")
@click.option(
    "--build",
    is_flag=True,
    help="Rebuild from the portable graph if the engine is for another machine, or by nobody whom you trust.",
)
@allow_untrusted
@plugin_dirs
@as_json
def command(
    engine: str,
    images: tuple[Path, ...],
    target: str | None,
    top: int,
    threads: int | None,
    build: bool,  # noqa: FBT001 - click's flags
    allow_untrusted: bool,  # noqa: FBT001
    plugin_dirs: tuple[Path, ...],
    as_json: bool,  # noqa: FBT001
) -> None:
    """Run ENGINE on IMAGES and print the most probable classes.

    ENGINE is a reference, a bundle's directory, or an engine file with its .json beside it.

    \b
    Examples:
      qzoo run resnet20:int8 digit.png
      qzoo run ./mybundle one.jpg two.jpg --top 1 --json
    """
    from qzoo.errors import EngineMismatch, UntrustedEngine

    try:
        loaded = load(engine, target=target, plugin_dirs=plugin_dirs, threads=threads, allow_untrusted=allow_untrusted)
    except (EngineMismatch, UntrustedEngine):
        if not build:
            raise
        loaded = load(_rebuilt(engine, target, plugin_dirs), plugin_dirs=plugin_dirs, threads=threads)
    results = [(image, loaded.classify(image, top)) for image in images]
    if as_json:
        from qzoo.records import encode

        found = tuple(Classified(image=str(image), classes=tuple(guesses)) for image, guesses in results)
        click.echo(encode(RunObject(engine=str(loaded.path), results=found)), nl=False)
        return
    for image, guesses in results:
        click.echo(str(image))
        for guess in guesses:
            click.echo(f"  {guess.probability:7.2%}  {guess.label}")


def _rebuilt(engine: str, target: str | None, plugin_dirs: tuple[Path, ...]) -> Path:
    from qzoo.cli.logs import remark
    from qzoo.cli.progress import shown
    from qzoo.engine import find
    from qzoo.pipeline import rebuild
    from qzoo.store import Bundle, Store

    store, registry = Store.default(), load_registry(plugin_dirs)
    found = find(engine, registry, store, target)
    old = Bundle.open(found.path.parent)
    with shown() as progress:
        new = rebuild(old, registry, store, progress, found.reference)
    remark(f"rebuilt for {new.record.target}: {new.engine}")
    return new.engine
