"""qzoo verify."""

from __future__ import annotations

from dataclasses import dataclass

import click

from qzoo.cli.options import as_json, complete_engines, complete_targets
from qzoo.cli.store.verify import DamagedFile
from qzoo.zoo.examine import Examined

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyObject:
    """`qzoo verify --json`: how many files were read, those that differ, and what is to be said of each engine."""

    files: int
    damaged: tuple[DamagedFile, ...]
    engines: tuple[Examined, ...]


@click.command()
@click.argument("engines", metavar="ENGINE...|all", nargs=-1, required=True, shell_complete=complete_engines)
@click.option("--target", shell_complete=complete_targets, help="Of a reference: only for this one. Default: for all.")
@as_json
def command(engines: tuple[str, ...], target: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Compare every file of ENGINEs with its digest, and say who signed them. Ends with 6 unless all may be loaded.

    ENGINE is a reference, a bundle's directory, or an engine file; `all` is the whole store. Nothing is loaded.

    \b
    Examples:
      qzoo verify resnet20:int8
      qzoo verify ./mybundle --json
      qzoo verify all
    """
    from qzoo.cli.progress import shown
    from qzoo.errors import UsageError
    from qzoo.store import Store
    from qzoo.zoo.examine import examine

    whole = ALL in engines
    if whole and (len(engines) > 1 or target is not None):
        raise UsageError("`all` is the whole store, for every target; give it alone")
    with shown() as progress:
        found = examine(() if whole else engines, Store.default(), target)
        progress.stage("hashing", found.files)
        damage = tuple(
            DamagedFile(path=str(one.path), expected=one.expected, found=one.found)
            for one in found.damage(progress.advance)
        )
    result = VerifyObject(files=found.files, damaged=damage, engines=tuple(found.engines()))
    if as_json:
        from qzoo.records import encode

        click.echo(encode(result), nl=False)
    else:
        click.echo("\n".join(_lines(result)))
    _fail(result)


def _lines(found: VerifyObject) -> list[str]:
    from qzoo.cli.store.verify import damage_lines

    lines = [f"{one.engine} for {one.target}: {one.reason}" for one in found.engines]
    return [*lines, *damage_lines(found.files, found.damaged)]


def _fail(found: VerifyObject) -> None:
    from qzoo.errors import IntegrityError, UntrustedEngine

    if found.damaged:
        raise IntegrityError(
            f"{len(found.damaged)} of {found.files} files are damaged; build their models again with --force, or pull "
            "them again"
        )
    refused = [one for one in found.engines if not one.loadable]
    if refused:
        raise UntrustedEngine(
            f"{len(refused)} of {len(found.engines)} engines would not be loaded; trust their keys with `qzoo key "
            "trust`, or rebuild them from their portable graphs with `qzoo pull --build`"
        )
