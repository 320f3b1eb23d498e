"""Latency and throughput of engines, measured side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qzoo.apart import Apart, turns
from qzoo.engine import LoadedEngine
from qzoo.errors import UsageError
from qzoo.measure import latency_ratio, timings
from qzoo.pipeline.progress import Progress
from qzoo.records import LayerTime

PROFILED = 20
"""Calls in which layers are timed; each is slower than one without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTimes:
    """One engine's figures: milliseconds per call, images per second.

    `ratio` is the median of its latency to the first engine's over the rounds, `ratio_ci95` its 95 % interval; None
    for the first itself. `layers`: each layer's time, where it was asked for and the runtime tells it.
    """

    engine: str
    model: str
    precision: str
    target: str
    batch: int
    threads: int
    rounds: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    layers: tuple[LayerTime, ...] | None = None


def bench(
    engines: Sequence[LoadedEngine],
    *,
    batch_size: int,
    threads: int | None,
    seconds: float,
    progress: Progress,
    layers: bool = False,
) -> tuple[EngineTimes, ...]:
    """Time engines, each in a process of its own, in turn and in a random order, for `seconds` in all.

    Raises UsageError for a batch that an engine doesn't take, or a duration that isn't above 0; TargetError.
    """
    if not seconds > 0:
        raise UsageError(f"--duration {seconds}: give seconds, more than 0")
    for engine in engines:
        engine.run(_batch(engine, batch_size))  # which refuses a batch that it doesn't take
    progress.stage("timing", None)
    apart = {
        str(place): Apart.of(engine.path, engine.record, batch_size, engine.plugin_dirs, threads)
        for place, engine in enumerate(engines)
    }
    with turns(apart) as found:
        times = timings(found, seconds=seconds, advance=progress.advance)
    used = threads or os.cpu_count() or 1
    rows = []
    for engine, own in zip(engines, times.values(), strict=True):
        median = float(np.median(own))
        ratio, interval = (None, None) if own is times["0"] else latency_ratio(own, times["0"])
        rows.append(
            EngineTimes(
                engine=str(engine.path),
                model=engine.record.model,
                precision=engine.record.precision,
                target=str(engine.record.target),
                batch=batch_size,
                threads=used,
                rounds=len(own),
                median_ms=round(median, 4),
                p90_ms=round(float(np.percentile(own, 90)), 4),
                p99_ms=round(float(np.percentile(own, 99)), 4),
                images_per_second=round(1000 * batch_size / median, 1),
                ratio=ratio,
                ratio_ci95=interval,
                layers=engine.profile(_batch(engine, batch_size), PROFILED) if layers else None,
            )
        )
    return tuple(rows)


def _batch(engine: LoadedEngine, batch_size: int) -> dict[str, NDArray[np.float32]]:
    info = engine.record.inputs[0]
    return {info.name: np.random.default_rng(0).standard_normal((batch_size, *info.shape), dtype=np.float32)}
