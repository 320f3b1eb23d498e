"""Times candidates, round by round, in a random order: here in processes of their own, each of which runs this file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from loading import Candidate, load

WARM_UP = 3
PAUSE_S = 0.01
"""Before each call. Both runtimes' threads spin for a while after a call, and would take the cores from the next."""


def time_in_processes(
    candidates: Sequence[Candidate], *, batch: int, rounds: int, processes: int, folder: Path
) -> dict[str, list[list[float]]]:
    """Milliseconds by candidate: one list of `rounds` for each of `processes`. One candidate must be qzoo's."""
    job = folder / f"job-{batch}.json"
    job.write_text(json.dumps({"batch": batch, "rounds": rounds, "candidates": [asdict(c) for c in candidates]}))
    times = [_process(job, seed) for seed in range(processes)]
    return {c.name: [process[c.name] for process in times] for c in candidates}


def _process(job: Path, seed: int) -> dict[str, list[float]]:
    command = [sys.executable, __file__, str(job), str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    times: dict[str, list[float]] = json.loads(done.stdout)
    return times


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    generator = np.random.default_rng(int(sys.argv[2]))
    calls = {entry["name"]: load(Candidate(**entry)) for entry in job["candidates"]}
    batch = generator.standard_normal((job["batch"], *_shape(job)), dtype=np.float32)
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for name in names * WARM_UP:
        calls[name](batch)
    for _ in range(job["rounds"]):
        for index in generator.permutation(len(names)):
            sleep(PAUSE_S)
            start = perf_counter()
            calls[names[index]](batch)
            times[names[index]].append((perf_counter() - start) * 1e3)
    print(json.dumps(times))


def _shape(job: dict[str, list[dict[str, str]]]) -> tuple[int, ...]:
    sidecar = next(entry["path"] for entry in job["candidates"] if entry["kind"] == "qzoo")
    record = json.loads(Path(sidecar + ".json").read_text())
    return tuple(record["inputs"][0]["shape"])


if __name__ == "__main__":
    main()
