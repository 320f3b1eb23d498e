"""Trying again after a cut connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import sleep
from typing import TypeVar

from qzoo.errors import RemoteInterrupted

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How often to try in a row without progress, and how many seconds to wait in between: doubled each time."""

    attempts: int = 5
    first_s: float = 0.1
    longest_s: float = 2.0

    def wait(self, failures: int, stopped: Callable[[float], object] = sleep) -> None:
        """Wait after so many failures in a row; `stopped` waits, and may be woken."""
        stopped(min(self.first_s * 2 ** (failures - 1), self.longest_s))


def retried(call: Callable[[], T], backoff: Backoff) -> T:
    """What the call returns. Raises RemoteInterrupted once it has been cut `attempts` times."""
    for failures in range(1, backoff.attempts):
        try:
            return call()
        except RemoteInterrupted:
            backoff.wait(failures)
    return call()
