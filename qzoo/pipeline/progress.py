"""How stages report what they are doing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Shown to a person, or to nobody."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins; `total` is the number of steps, None where it isn't known."""

    def advance(self, steps: int = 1) -> None:
        """Steps of the current stage are done."""

    def detail(self, text: str) -> None:
        """How the current stage goes: a loss, a speed."""


class Silent:
    """Shows nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, steps: int = 1) -> None:
        """Nothing."""

    def detail(self, text: str) -> None:
        """Nothing."""


def tracked(items: Iterable[T], progress: Progress) -> Iterator[T]:
    """The same items; each counts as a step once it has been dealt with."""
    for item in items:
        yield item
        progress.advance()
