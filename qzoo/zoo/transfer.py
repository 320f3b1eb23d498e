"""How moving blobs is shown."""

from __future__ import annotations

from typing import Protocol


class Transfers(Protocol):
    """Shown to a person, or to nobody. Called from several threads."""

    def begin(self, name: str, size: int) -> None:
        """A blob of so many bytes, known by its file's name, begins to move."""

    def moved(self, name: str, size: int) -> None:
        """More bytes of it are there: those of an earlier, cut transfer count too. Negative where it starts over."""

    def done(self, name: str, state: str) -> None:
        """It is whole: "fetched", "resumed", "uploaded", or "already there"."""


class Unseen:
    """Shows nothing."""

    def begin(self, name: str, size: int) -> None:
        """Nothing."""

    def moved(self, name: str, size: int) -> None:
        """Nothing."""

    def done(self, name: str, state: str) -> None:
        """Nothing."""
