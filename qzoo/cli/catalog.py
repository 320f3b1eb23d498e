"""qzoo catalog."""

from __future__ import annotations

from dataclasses import dataclass

import click

from qzoo.cli import remotes
from qzoo.cli.options import as_json
from qzoo.cli.terminal import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A name:tag, and the targets of its engines, each with its runtime's version."""

    reference: str
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogObject:
    """`qzoo catalog --json`."""

    registry: str
    published: tuple[Published, ...]


@click.command()
@remotes.registry
@remotes.insecure
@as_json
def command(registry: str | None, insecure: bool, as_json: bool) -> None:  # noqa: FBT001 - click's flags
    """List what a registry holds, and for which targets.

    \b
    Examples:
      qzoo catalog
      qzoo catalog --registry https://models.example.com/zoo --json
    """
    from qzoo.store import Store
    from qzoo.zoo.catalog import catalog

    remote = remotes.connect(registry, Store.default(), insecure=insecure)
    found = tuple(Published(reference=one.reference, targets=one.targets) for one in catalog(remote))
    if as_json:
        from qzoo.records import encode

        click.echo(encode(CatalogObject(registry=remote.location, published=found)), nl=False)
        return
    from qzoo.report import aligned

    rows = [("reference", "targets"), *((one.reference, ", ".join(one.targets)) for one in found)]
    lines = [line.removeprefix("  ") for line in aligned(rows)]
    click.echo(plain("\n".join(lines)) if found else f"{remote.location} holds nothing yet")
