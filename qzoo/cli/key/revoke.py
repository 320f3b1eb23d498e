"""qzoo key revoke."""

from __future__ import annotations

import click

from qzoo.cli.options import as_json


@click.command()
@click.argument("key")
@as_json
def command(key: str, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Never take a signature of this KEY again, whenever it was made: for a key that others may have got hold of.

    KEY is its name, its id, or the first 8 or more digits of it. This is for this machine only: tell the id to all who
    trust it. It can't be undone; a key that was made anew is another key.

    \b
    Examples:
      qzoo key revoke colleague
      qzoo key revoke 3d4017c3e843895a --json
    """
    from qzoo.cli.key.record import key_of, show
    from qzoo.store import Store
    from qzoo.zoo.trust import TrustStore

    store = Store.default()
    known = TrustStore(store.home).revoke(key)
    show(key_of(store, known.id), lambda gone: f"revoked {gone.name or 'a key'}: {gone.id}", as_json=as_json)
