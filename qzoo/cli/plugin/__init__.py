"""qzoo plugin: its verbs, a file each."""

from __future__ import annotations

import click

from qzoo.cli.group import Verbs

VERBS = {
    "check": "Say whether a plugin does what it declares.",
    "new": "Write a new plugin: a package that passes every check.",
}


class _Plugin(Verbs):
    package, verbs = "qzoo.cli.plugin", VERBS


@click.command(cls=_Plugin)
def command() -> None:
    """Write plugins, and check that they do what they declare.

    \b
    Examples:
      qzoo plugin new mynet
      qzoo plugin check
      qzoo plugin check resnet20 --json
    """
