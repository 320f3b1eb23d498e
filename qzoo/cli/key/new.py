"""qzoo key new."""

from __future__ import annotations

import click

from qzoo.cli.options import as_json


@click.command()
@click.argument("name", default="default")
@as_json
def command(name: str, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Make a key to sign engines with, called NAME (default: default), and trust it here.

    The private key is a file that only you can read: keep a copy in a safe place. Others trust you by `qzoo key show`.

    \b
    Examples:
      qzoo key new
      qzoo key new release --json
    """
    from qzoo.cli.key.record import key_of, show
    from qzoo.errors import UsageError
    from qzoo.store import Store
    from qzoo.zoo.keys import KeyRing
    from qzoo.zoo.trust import TrustStore

    store = Store.default()
    trust = TrustStore(store.home)
    if any(key.name == name for key in trust.known()):
        raise UsageError(f"a key called {name} is known here already: qzoo key list; choose another, qzoo key new NAME")
    key = KeyRing(store.home).new(name)
    trust.trust(key.public, name)
    show(
        key_of(store, key.public.id), lambda made: f"key {made.name}: {made.id}\nprivate: {made.file}", as_json=as_json
    )
