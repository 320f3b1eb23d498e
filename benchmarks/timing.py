"""Times candidates in turn, in a random order, each in a process of its own, which runs this file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path

import numpy as np
from loading import Candidate, load

from qzoo.apart import answers, processes, serve
from qzoo.measure import timings


def time_in_processes(
    candidates: Sequence[Candidate], *, batch: int, rounds: int, repeats: int
) -> dict[str, list[list[float]]]:
    """Milliseconds by candidate: `repeats` lists of `rounds`, each of a new process. One candidate must be qzoo's.

    Processes are started in another order each time: one that is started later gets other memory.
    """
    shape, order = (batch, *_shape(candidates)), np.random.default_rng(0)
    times = [
        _one_list_each([candidates[index] for index in order.permutation(len(candidates))], shape, rounds)
        for _ in range(repeats)
    ]
    return {c.name: [repeat[c.name] for repeat in times] for c in candidates}


def _one_list_each(candidates: Sequence[Candidate], shape: tuple[int, ...], rounds: int) -> dict[str, list[float]]:
    commands = {c.name: [sys.executable, __file__, json.dumps(asdict(c)), json.dumps(shape)] for c in candidates}
    with processes(commands) as turns:
        return {name: times.tolist() for name, times in timings(turns, rounds=rounds, seconds=inf).items()}


def _shape(candidates: Sequence[Candidate]) -> tuple[int, ...]:
    engine = next(candidate.path for candidate in candidates if candidate.kind == "qzoo")
    record = json.loads(Path(f"{engine}.json").read_text())
    return tuple(record["inputs"][0]["shape"])


def main() -> None:
    out = answers()
    call = load(Candidate(**json.loads(sys.argv[1])))
    batch = np.random.default_rng(0).standard_normal(json.loads(sys.argv[2]), dtype=np.float32)
    serve(lambda: call(batch), out)


if __name__ == "__main__":
    main()
