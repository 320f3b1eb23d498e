"""Engines that each run in a process of their own, to be timed in turn.

In one process the threads of one runtime wait for work on the cores that the next one needs: ResNet-18's INT8 engines
took twice as long beside others as alone, and the slower of two could seem the faster.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter, process_time, sleep
from typing import IO, Self

import numpy as np

from qzoo.errors import TargetError
from qzoo.records import EngineRecord, decode, encode
from qzoo.registry import Registry

IDLE_S, IDLE_SHARE, LONGEST_S = 0.005, 0.1, 0.5
"""A turn ends when its process takes less than a share of one core for so long; after the longest time anyhow.

A runtime's threads spin for a while after a call, and would take the cores from another process. ONNX Runtime's do so
for 30 ms: where the next turn began 10 ms after it, OpenVINO's ResNet-50 took 12.0 ms instead of 9.0.
"""
WARM_S = 0.01
"""How long an engine is called before the call that counts: so long that its threads and caches are back."""
_PROGRAM = "from qzoo.apart import main; main()"
_READY = "ready"

Turn = Callable[[], float]
"""Calls an engine for `WARM_S`, once at least, and then once more; gives that call's milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """An engine file to load in a process of its own, and the batch to run there."""

    path: str
    record: EngineRecord
    batch: int
    threads: int | None = None
    plugin_dirs: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, path: Path, record: EngineRecord, batch: int, plugin_dirs: Sequence[Path], threads: int | None = None
    ) -> Self:
        """An engine whose runtime is a plugin's in one of `plugin_dirs`, or an installed one."""
        dirs = tuple(map(str, plugin_dirs))
        return cls(path=str(path), record=record, batch=batch, threads=threads, plugin_dirs=dirs)


@contextmanager
def turns(engines: Mapping[str, Apart]) -> Iterator[dict[str, Turn]]:
    """Each engine's turn, on random input, until the context ends. Raises TargetError where one can't be run."""
    command = [sys.executable, "-P", "-c", _PROGRAM]
    with processes({name: [*command, encode(engine).decode()] for name, engine in engines.items()}) as found:
        yield found


@contextmanager
def processes(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Turn]]:
    """The turn of each command's process, which answers by `serve`. They end with the context."""
    with ExitStack() as stack:
        started = {name: stack.enter_context(_running(name, command)) for name, command in commands.items()}
        for process in started.values():
            process.wait_until_ready()
        yield {name: process.turn for name, process in started.items()}


def serve(call: Callable[[], object], out: IO[str]) -> None:
    """In the process: take a turn whenever one is asked for."""
    call()
    print(_READY, file=out, flush=True)
    for _ in sys.stdin:
        _warm(call)
        start = perf_counter()
        call()
        elapsed = (perf_counter() - start) * 1e3
        wait_until_idle()
        print(elapsed, file=out, flush=True)


def _warm(call: Callable[[], object]) -> None:
    began = perf_counter()
    while True:
        call()
        if perf_counter() - began >= WARM_S:
            return


def wait_until_idle(used: Callable[[], float] = process_time) -> None:
    """Return when the process's threads have stopped. `used` gives the seconds of all cores that they took so far."""
    began = perf_counter()
    while perf_counter() - began < LONGEST_S:
        since, before = perf_counter(), used()
        sleep(IDLE_S)
        if used() - before < IDLE_SHARE * (perf_counter() - since):
            return


def answers() -> IO[str]:
    """In the process: where to answer. What anything else writes to stdout goes to stderr from now on."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return own


def main() -> None:
    """In the process: load the engine that the first argument tells, and serve."""
    out = answers()
    asked = decode(sys.argv[1].encode(), Apart, "what is to be timed")
    backend = Registry.load(tuple(map(Path, asked.plugin_dirs))).backend(asked.record.target.runtime)
    engine = backend.load(Path(asked.path), asked.record, asked.threads)
    random = np.random.default_rng(0)
    inputs = {
        info.name: random.standard_normal((asked.batch, *info.shape), dtype=np.float32) for info in asked.record.inputs
    }
    serve(lambda: engine.run(inputs), out)


@dataclass(frozen=True)
class _Process:
    name: str
    child: subprocess.Popen[str]
    requests: IO[str]
    replies: IO[str]
    said: IO[bytes]

    def wait_until_ready(self) -> None:
        if self._reply() != _READY:
            raise TargetError(f"{self.name}: the process that times it is not one of qzoo's")

    def turn(self) -> float:
        with suppress(BrokenPipeError):  # the reply says why
            print(file=self.requests, flush=True)
        return float(self._reply())

    def _reply(self) -> str:
        line = self.replies.readline()
        if line:
            return line.strip()
        status = self.child.wait()
        self.said.seek(0)
        words = self.said.read().decode(errors="replace").strip().splitlines()
        raise TargetError(f"{self.name}: the process that times it ended: {words[-1] if words else f'status {status}'}")


@contextmanager
def _running(name: str, command: Sequence[str]) -> Iterator[_Process]:
    with TemporaryFile() as said:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            if child.stdin is None or child.stdout is None:
                raise TargetError(f"{name}: the process that times it has no pipes")
            yield _Process(name, child, child.stdin, child.stdout, said)
        finally:
            child.kill()
            child.communicate()
