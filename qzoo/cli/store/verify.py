"""qzoo store verify."""

from __future__ import annotations

from dataclasses import dataclass

import click

from qzoo.cli.options import as_json, complete_engines, complete_targets


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedFile:
    """A file whose SHA-256 isn't the expected one; `found` is null where it is missing or can't be read."""

    path: str
    expected: str
    found: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedObject:
    """`qzoo store verify --json`: how many files were read, and those that differ."""

    files: int
    damaged: tuple[DamagedFile, ...]


@click.command()
@click.argument("references", metavar="[REFERENCE]...", nargs=-1, shell_complete=complete_engines)
@click.option(
    "--target", shell_complete=complete_targets, help="With a REFERENCE: only for this one. Default: for all."
)
@as_json
def command(references: tuple[str, ...], target: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Compare every stored file, or those of each REFERENCE, with its digest. Ends with 6 where one differs.

    \b
    Examples:
      qzoo store verify
      qzoo store verify resnet20:int8 --json
    """
    from qzoo.cli.progress import shown
    from qzoo.errors import IntegrityError, UsageError
    from qzoo.store import Reference, Store

    if target is not None and not references:
        raise UsageError(f"--target {target} picks one of a reference's; give the reference too")
    with shown() as progress:
        checked = Store.default().verification([Reference.parse(text) for text in references], target)
        progress.stage("hashing", checked.files)
        damage = tuple(
            DamagedFile(path=str(one.path), expected=one.expected, found=one.found)
            for one in checked.damage(progress.advance)
        )
    found = VerifiedObject(files=checked.files, damaged=damage)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
    else:
        click.echo("\n".join(damage_lines(found.files, found.damaged)))
    if damage:
        raise IntegrityError(
            f"{len(damage)} of {checked.files} files are damaged; build their models again with --force, or forget "
            "them with `qzoo store rm` and `qzoo store gc`"
        )


def damage_lines(files: int, damaged: tuple[DamagedFile, ...]) -> list[str]:
    """Say which of `files` files differ."""
    lines = [] if damaged else [f"all {files} files are as they were stored"]
    for one in damaged:
        lines.append(f"{one.path}")
        lines.append(f"  expected sha256:{one.expected}")
        lines.append("  missing, or can't be read" if one.found is None else f"  found    sha256:{one.found}")
    return lines
