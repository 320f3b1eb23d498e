"""qzoo key show."""

from __future__ import annotations

import click

from qzoo.cli.options import as_json


@click.command()
@click.argument("name", required=False)
@as_json
def command(name: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Print your public key NAME as a line of text, which others give to `qzoo key trust`.

    Without NAME: the key called default, or the only one. The line is no secret, but let others know its id by a way
    that nobody can change, such as a call: then they know that the line is yours.

    \b
    Examples:
      qzoo key show > me.pub
      qzoo key show release --json
    """
    from qzoo.cli.key.record import key_of, show
    from qzoo.store import Store
    from qzoo.zoo.keys import KeyRing

    store = Store.default()
    key = KeyRing(store.home).get(name).public
    shown = key_of(store, key.id)
    show(shown, lambda found: key.line(found.name), as_json=as_json)
