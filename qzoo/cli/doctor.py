"""qzoo doctor."""

from __future__ import annotations

from pathlib import Path

import click

from qzoo.cli.options import as_json, load_registry, plugin_dirs


@click.command()
@plugin_dirs
@as_json
def command(plugin_dirs: tuple[Path, ...], as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Say what is installed, which targets work here, and why not.

    \b
    Examples:
      qzoo doctor
      qzoo doctor --json
    """
    from qzoo.doctor import examine, lines
    from qzoo.store import Store

    found = examine(load_registry(plugin_dirs), Store.default())
    if as_json:
        from qzoo.records import encode

        click.echo(encode(found), nl=False)
        return
    click.echo("\n".join(lines(found)))
