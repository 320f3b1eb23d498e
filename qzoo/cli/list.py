"""qzoo list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from qzoo.cli.options import as_json, load_registry, plugin_dirs
from qzoo.provenance import Provenance
from qzoo.registry import Problem


@dataclass(frozen=True, slots=True)
class Listed:
    """A model, and where it comes from."""

    name: str
    summary: str
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class ListedFamily:
    """A family of models, called `<prefix>/<name>`, and where it comes from."""

    prefix: str
    summary: str
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class ListObject:
    """`qzoo list --json`. `problems` are the plugins that were left out."""

    models: tuple[Listed, ...]
    families: tuple[ListedFamily, ...]
    problems: tuple[Problem, ...]


@click.command()
@plugin_dirs
@as_json
def command(plugin_dirs: tuple[Path, ...], as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """List the models, and which plugin each comes from.

    \b
    Examples:
      qzoo list
      qzoo list --json --plugin-dir ./my-plugin
    """
    registry = load_registry(plugin_dirs, builtins=False)
    models, families = registry.models(), registry.families()
    if as_json:
        from qzoo.records import encode

        found = ListObject(
            models=tuple(Listed(e.spec.name, e.spec.summary, e.provenance) for e in models),
            families=tuple(ListedFamily(e.family.prefix, e.family.summary, e.provenance) for e in families),
            problems=registry.problems,
        )
        click.echo(encode(found), nl=False)
        return
    rows = [(entry.spec.name, _source(entry.provenance), entry.spec.summary) for entry in models]
    rows += [(f"{entry.family.prefix}/*", _source(entry.provenance), entry.family.summary) for entry in families]
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for name, source, summary in rows:
        click.echo(f"{name.ljust(widths[0])}  {source.ljust(widths[1])}  {summary}")


def _source(provenance: Provenance) -> str:
    if provenance.distribution is None:
        return provenance.plugin
    return f"{provenance.plugin} ({provenance.distribution} {provenance.version})"
