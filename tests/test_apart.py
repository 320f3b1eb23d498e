"""Engines in processes of their own: what a turn is, and what is said where a process can't take one."""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qzoo.apart import LONGEST_S, WARM_S, Apart, processes, turns, wait_until_idle
from qzoo.errors import TargetError
from qzoo.measure import wall

PROGRAM = """
import sys
from qzoo.apart import answers, serve
out, log, calls = answers(), sys.argv[1], []
def call():
    calls.append(None)
    with open(log, "a") as file:
        file.write("call\\n")
    print("a runtime says something")
    if len(calls) == {last}:
        sys.exit("the runtime gave up")
serve(call, out)
"""


def command(log: Path, last: int = 0) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(last=last), str(log)]


def test_a_turn_of_a_slow_engine_is_two_calls_after_one_at_the_start(tmp_path):
    log = tmp_path / "log"
    slow = f"import time; time.sleep({WARM_S}); print("
    with processes({"a": [sys.executable, "-c", PROGRAM.format(last=0).replace("print(", slow), str(log)]}) as found:
        assert log.read_text().splitlines() == ["call"]
        times = [found["a"]() for _ in range(3)]
    assert log.read_text().splitlines() == ["call"] * 7
    assert min(times) >= WARM_S * 1e3


def test_a_fast_engine_is_called_until_it_is_warm(tmp_path):
    with processes({"a": command(tmp_path / "log")}) as found:
        elapsed = wall(found["a"])()
    assert elapsed > WARM_S * 1e3


def test_a_turn_waits_until_the_process_takes_no_more_of_the_cores():
    readings = iter([0, 60, 120, 180, 240, 240])  # seconds: busy, busy, idle
    wait_until_idle(lambda: next(readings))
    assert not list(readings)


def test_a_turn_does_not_wait_for_ever_for_a_process_that_is_never_idle():
    readings = count(step=60)
    assert wall(lambda: wait_until_idle(lambda: next(readings)))() > LONGEST_S * 1e3


def test_each_engine_has_a_process_of_its_own_that_ends_with_the_context():
    said = PROGRAM.replace('file.write("call\\n")', "file.write(str(os.getpid()))").replace(
        "import sys", "import os, sys", 1
    )
    pids = set()
    with TemporaryDirectory() as folder:
        logs = [Path(folder) / name for name in "ab"]
        programs = {log.name: [sys.executable, "-c", said.format(last=0), str(log)] for log in logs}
        with processes(programs):
            pids = {int(log.read_text()) for log in logs}
    assert len(pids - {os.getpid()}) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_does_not_start_is_told_by_its_last_words():
    broken = [sys.executable, "-c", "import sys; sys.exit('no kernel for this CPU')"]
    expected = pytest.raises(TargetError, match="fp32: the process that times it ended: no kernel for this CPU")
    with expected, processes({"fp32": broken}):
        pass


def test_a_process_that_ends_during_a_turn_is_told_by_its_last_words(tmp_path):
    expected = pytest.raises(TargetError, match="int8: the process that times it ended: the runtime gave up")
    with processes({"int8": command(tmp_path / "log", last=3)}) as found, expected:
        found["int8"]()


def test_a_program_that_does_not_serve_is_refused():
    program = [sys.executable, "-c", "print('hello'); input()"]
    with pytest.raises(TargetError, match="is not one of qzoo's"), processes({"a": program}):
        pass


def test_engines_of_both_runtimes_are_timed(bundles):
    engines = {name: Apart.of(bundle.engine, bundle.record, 2, ()) for name, bundle in bundles.items()}
    with turns(engines) as found:
        assert sorted(found) == sorted(bundles)
        assert all(turn() > 0 for turn in found.values())


def test_a_batch_the_engine_does_not_take_is_said(bundles):
    bundle = next(iter(bundles.values()))
    engines = {"a": Apart.of(bundle.engine, bundle.record, 65, ())}
    with pytest.raises(TargetError, match="batch of 65; the engine takes 1 to 64"), turns(engines):
        pass
