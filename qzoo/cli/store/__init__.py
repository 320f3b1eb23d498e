"""qzoo store: its verbs, a file each."""

from __future__ import annotations

import click

from qzoo.cli.group import Verbs

VERBS = {
    "gc": "Free the space of what nothing names any more.",
    "ls": "List the stored engines, with what was measured.",
    "rm": "Forget stored engines.",
    "show": "Show what a stored engine holds.",
    "verify": "Compare every stored file with its digest.",
}


class _Store(Verbs):
    package, verbs = "qzoo.cli.store", VERBS


@click.command(cls=_Store)
def command() -> None:
    """List, check and remove what builds have stored under QZOO_HOME, and free its space.

    \b
    Examples:
      qzoo store ls
      qzoo store verify
      qzoo store rm resnet20:int8
      qzoo store gc
    """
