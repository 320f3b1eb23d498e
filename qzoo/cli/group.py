"""A group of verbs, each in a file of its own that is imported when the verb is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from importlib import import_module
from typing import ClassVar

import click


class Verbs(click.Group):
    """The verbs of one package, which a subclass names: a verb's file has its name, and in it `command`.

    `verbs` says in one line what each does, so that showing them imports none.
    """

    package: ClassVar[str]
    verbs: ClassVar[Mapping[str, str]]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return self.verb(cmd_name)

    def verb(self, name: str) -> click.Command | None:
        """The verb of that name; one that is no group itself also takes what `qzoo.cli.logs` gives to each."""
        if name not in self.verbs:
            return None
        from qzoo.cli import logs

        command = import_module(f"{self.package}.{name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.package}.{name}.command is not a click command")
        command = copy(command)
        command.name = name
        if not isinstance(command, click.Group):
            command.params = [*command.params, *logs.options()]
        return command

    def each(self) -> Iterator[tuple[str, click.Command]]:
        """Every verb by its name."""
        for name in sorted(self.verbs):
            command = self.verb(name)
            if command is not None:
                yield name, command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.verbs[name]) for name in sorted(self.verbs)])
