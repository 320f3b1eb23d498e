"""qzoo key list."""

from __future__ import annotations

import click

from qzoo.cli.options import as_json


@click.command()
@as_json
def command(as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """List the keys by name: your own, the trusted and the revoked ones.

    \b
    Examples:
      qzoo key list
      qzoo key list --json
    """
    from qzoo.cli.key.record import KeysObject, keys_of
    from qzoo.records import encode
    from qzoo.report import aligned
    from qzoo.store import Store

    keys = keys_of(Store.default())
    if as_json:
        click.echo(encode(KeysObject(keys=keys)), nl=False)
    elif keys:
        rows = [("name", "id", "state", "whose")]
        rows += [(key.name or "-", key.id, key.state, "yours" if key.file else "another's") for key in keys]
        click.echo("\n".join(aligned(rows)))
    else:
        click.echo("no keys; make one: qzoo key new")
