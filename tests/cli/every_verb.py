"""Every verb, those of groups too, as the words that call it."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.cli.group import Verbs
from qzoo.cli.main import cli


def words_of(group: Verbs) -> Iterator[tuple[str, ...]]:
    for name, command in group.each():
        below = words_of(command) if isinstance(command, Verbs) else [()]
        yield from ((name, *words) for words in below)


EVERY_VERB = sorted(words_of(cli))
