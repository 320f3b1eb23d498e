"""qzoo list."""

from __future__ import annotations

from pathlib import Path

import click

from qzoo.cli.options import as_json, load_registry, plugin_dirs


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
    registry = load_registry(plugin_dirs)
    models, families = registry.models(), registry.families()
    if as_json:
        from qzoo.records import encode

        found = {
            "models": [
                {"name": entry.spec.name, "summary": entry.spec.summary, "provenance": entry.provenance}
                for entry in models
            ],
            "families": [
                {"prefix": entry.family.prefix, "summary": entry.family.summary, "provenance": entry.provenance}
                for entry in families
            ],
            "problems": registry.problems,
        }
        click.echo(encode(found), nl=False)
        return
    rows = [(entry.spec.name, _source(entry.provenance), entry.spec.summary) for entry in models]
    rows += [(f"{entry.family.prefix}/*", _source(entry.provenance), entry.family.summary) for entry in families]
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for name, source, summary in rows:
        click.echo(f"{name.ljust(widths[0])}  {source.ljust(widths[1])}  {summary}")


def _source(provenance: object) -> str:
    from qzoo.records import Provenance

    if not isinstance(provenance, Provenance):
        raise TypeError(f"not a provenance: {provenance!r}")
    if provenance.distribution is None:
        return provenance.plugin
    return f"{provenance.plugin} ({provenance.distribution} {provenance.version})"
