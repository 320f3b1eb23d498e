"""A progress bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from qzoo.cli.logs import LOGGER, quiet
from qzoo.pipeline.progress import Progress, Silent

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class _Bar:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total, detail="")

    def advance(self, steps: int = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def detail(self, text: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, detail=text)


class _Logged:
    """Passes on, and logs each stage as it begins and how long it took."""

    def __init__(self, inner: Progress) -> None:
        self._inner, self._name, self._began = inner, "", 0.0

    def stage(self, name: str, total: int | None = None) -> None:
        self.end()
        self._name, self._began = name, perf_counter()
        LOGGER.info("%s%s", name, "" if total is None else f", {total} steps")
        self._inner.stage(name, total)

    def advance(self, steps: int = 1) -> None:
        self._inner.advance(steps)

    def detail(self, text: str) -> None:
        self._inner.detail(text)

    def end(self) -> None:
        if self._name:
            LOGGER.debug("%s: %.2f s", self._name, perf_counter() - self._began)


@contextmanager
def shown() -> Iterator[Progress]:
    """What stages report to: the log, and a bar on stderr if that is a terminal (not with --quiet)."""
    with _bar() as bar:
        logged = _Logged(bar)
        yield logged
        logged.end()


@contextmanager
def _bar() -> Iterator[Progress]:
    if quiet() or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars)
