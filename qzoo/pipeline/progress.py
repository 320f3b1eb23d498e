"""How stages report what they are doing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter
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


class Clocked:
    """Passes on, and keeps how many seconds each stage took; one that is begun again adds up."""

    def __init__(self, inner: Progress) -> None:
        self._inner, self._name, self._began = inner, "", 0.0
        self._seconds: dict[str, float] = {}

    def stage(self, name: str, total: int | None = None) -> None:
        """The stage before it has ended."""
        self._end()
        self._name, self._began = name, perf_counter()
        self._inner.stage(name, total)

    def advance(self, steps: int = 1) -> None:
        """As it is."""
        self._inner.advance(steps)

    def detail(self, text: str) -> None:
        """As it is."""
        self._inner.detail(text)

    def seconds(self) -> dict[str, float]:
        """By stage, to a hundredth; the last one ends now."""
        self._end()
        return {name: round(spent, 2) for name, spent in self._seconds.items()}

    def _end(self) -> None:
        if self._name:
            self._seconds[self._name] = self._seconds.get(self._name, 0.0) + perf_counter() - self._began
        self._name = ""


def tracked(items: Iterable[T], progress: Progress) -> Iterator[T]:
    """The same items; each counts as a step once it has been dealt with."""
    for item in items:
        yield item
        progress.advance()
