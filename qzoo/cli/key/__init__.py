"""qzoo key: its verbs, a file each."""

from __future__ import annotations

import click

from qzoo.cli.group import Verbs

VERBS = {
    "list": "List the keys: your own, the trusted and the revoked ones.",
    "new": "Make a key to sign engines with.",
    "revoke": "Never take a signature of a key again.",
    "show": "Print a public key, for others to trust.",
    "trust": "Trust engines that a key signed.",
}


class _Key(Verbs):
    package, verbs = "qzoo.cli.key", VERBS


@click.command(cls=_Key)
def command() -> None:
    """Make keys that sign engines, and say whose signatures to trust.

    \b
    Examples:
      qzoo key new
      qzoo key show > me.pub
      qzoo key trust colleague.pub
      qzoo key list
      qzoo key revoke colleague
    """
