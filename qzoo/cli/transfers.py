"""A bar for each blob that moves on a terminal, nothing elsewhere. It doesn't load what builds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from qzoo.cli.logs import LOGGER, quiet

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from qzoo.zoo.transfer import Transfers


class _Blobs:
    """A bar for each blob that moves, with its bytes, and one for all."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._all = bars.add_task("all", total=0)
        self._tasks: dict[str, TaskID] = {}
        self._lock = Lock()

    def begin(self, name: str, size: int) -> None:
        with self._lock:
            self._tasks[name] = self._bars.add_task(name, total=size)
            self._bars.update(
                self._all, total=sum(task.total or 0 for task in self._bars.tasks if task.id != self._all)
            )

    def moved(self, name: str, size: int) -> None:
        self._bars.advance(self._tasks[name], size)
        self._bars.advance(self._all, size)

    def done(self, name: str, state: str) -> None:
        self._bars.update(self._tasks[name], description=f"{name} ({state})")
        LOGGER.info("%s: %s", name, state)


class _LoggedBlobs:
    """Only logs what became of each blob."""

    def begin(self, name: str, size: int) -> None:
        LOGGER.info("%s, %d bytes", name, size)

    def moved(self, name: str, size: int) -> None:
        """Nothing."""

    def done(self, name: str, state: str) -> None:
        LOGGER.info("%s: %s", name, state)


@contextmanager
def transfers() -> Iterator[Transfers]:
    """What moving blobs is reported to: the log, and bars on stderr if that is a terminal (not with --quiet)."""
    if quiet() or not sys.stderr.isatty():
        yield _LoggedBlobs()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        yield _Blobs(bars)
