"""qzoo store rm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import as_json, complete_engines, complete_targets

if TYPE_CHECKING:
    from qzoo.store import Reference, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was forgotten; the digest is as in a reference. Both None where a tag's damaged list was forgotten whole."""

    reference: str
    target: str | None
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedObject:
    """`qzoo store rm --json`."""

    removed: tuple[Removed, ...]


@click.command()
@click.argument("references", metavar="REFERENCE...", nargs=-1, required=True, shell_complete=complete_engines)
@click.option("--target", shell_complete=complete_targets, help="Only for this one. Default: for all.")
@as_json
def command(references: tuple[str, ...], target: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Forget stored engines, all or none of those named. Their space is freed by `qzoo store gc`.

    REFERENCE is name[:tag][@sha256:...]; the default tag is int8.

    \b
    Examples:
      qzoo store rm resnet20:int8
      qzoo store rm resnet18 resnet50:fp32 --target openvino
    """
    from qzoo.store import Reference, Store

    found = _removed(Store.default(), [Reference.parse(text) for text in references], target)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(RemovedObject(removed=found)), nl=False)
        return
    for one in found:
        what = f"for {one.target}, {one.digest}" if one.target else "whole, as its list of targets was damaged"
        click.echo(f"forgot {one.reference} {what}")
    click.echo("`qzoo store gc` frees the space")


def _removed(store: Store, references: list[Reference], target: str | None) -> tuple[Removed, ...]:
    entries = store.remove(*references, target=target)
    known = {entry.name for entry in entries}
    lost = dict.fromkeys(reference.tagged for reference in references if reference.tagged not in known)
    return (
        *(Removed(reference=entry.name, target=entry.target, digest=f"sha256:{entry.sha256}") for entry in entries),
        *(Removed(reference=name, target=None, digest=None) for name in lost),
    )
