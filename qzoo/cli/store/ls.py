"""qzoo store ls."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import as_json
from qzoo.report.objects import StoredObject, stored_object

if TYPE_CHECKING:
    from qzoo.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedStore:
    """`qzoo store ls --json`: where the store is, the bytes that its blobs take on the disk, and what it holds."""

    home: str
    disk_bytes: int
    stored: tuple[StoredObject, ...]


@click.command()
@as_json
def command(as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """List the stored engines: target, size, when it was stored, and what was measured then.

    \b
    Examples:
      qzoo store ls
      qzoo store ls --json
    """
    from qzoo.store import Store

    store = Store.default()
    found = ListedStore(home=str(store.home), disk_bytes=store.disk_bytes(), stored=_stored(store))
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
        return
    click.echo("\n".join(_lines(found)))


def _stored(store: Store) -> tuple[StoredObject, ...]:
    from qzoo.cli.logs import remark

    found = tuple(stored_object(entry, store) for entry in store.entries())
    for one in found:
        if one.damage is not None:
            remark(f"{one.reference} for {one.target} is damaged: {one.damage}")
    return found


def _lines(found: ListedStore) -> list[str]:
    from qzoo.report import aligned
    from qzoo.report.text import MB

    if not found.stored:
        return [f"nothing is stored in {found.home}; see `qzoo build --help`"]
    rows = [("reference", "target", "size", "latency", "accuracy", "stored"), *map(_row, found.stored)]
    total = f"{len(found.stored)} stored, {found.disk_bytes / MB:.1f} MB on the disk, in {found.home}"
    return [line.removeprefix("  ") for line in aligned(rows)] + ["", total]


def _row(one: StoredObject) -> tuple[str, ...]:
    from qzoo.report.text import MB

    if one.size_bytes is None or one.stored is None:
        return (one.reference, one.target, "damaged", "", "", "")
    size, latency, accuracy = one.size_bytes["engine"], one.latency_ms and one.latency_ms["engine"], one.accuracy
    return (
        one.reference,
        one.target,
        "-" if size is None else f"{size / MB:.3f} MB",
        "-" if latency is None else f"{latency:.3f} ms",
        "-" if accuracy is None else f"{accuracy.engine:.2%}",
        f"{datetime.fromisoformat(one.stored).astimezone():%Y-%m-%d %H:%M}",
    )
