"""Decodes a set of samples once: in worker processes where that pays, and kept on disk for the next build.

What is kept are the cropped pixels, uint8; normalizing them is cheap and done by whoever needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from qzoo.data.preprocess import cropped
from qzoo.data.sampler import sample_list_digest
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Dataset, Sample
from qzoo.records import Skipped, digest_of
from qzoo.spec import Preprocess
from qzoo.writing import new_file

CHUNK = 16
"""Samples that a worker process is handed at a time."""
PROBED = 8
WORTH_SECONDS = 8.0
"""Decoding that takes less is over before processes, each of which imports what the dataset needs, have started."""

Advance = Callable[[int], None]
"""Told how many more samples were read."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Samples that could be read, in order, with their pixels (N, crop, crop, C) uint8; and those that could not."""

    samples: tuple[Sample, ...]
    pixels: NDArray[np.uint8]
    skipped: tuple[Skipped, ...]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The labels (N,), or None unless every sample has one."""
        known = [sample.label for sample in self.samples if sample.label is not None]
        return np.array(known, np.int64) if len(known) == len(self.samples) else None


def decode_samples(
    dataset: Dataset,
    samples: Sequence[Sample],
    preprocess: Preprocess,
    *,
    workers: int = 0,
    strict: bool = False,
    cache: Path | None = None,
    advance: Advance = lambda _: None,
) -> Decoded:
    """Decode samples, or take them from `cache`, a directory, where the same were decoded before.

    A sample that can't be read is skipped and named in the result; with `strict` it raises DataUnavailable, and so
    does a set of which none can be read. `workers` 0 decodes in this process.
    """
    kept = None if cache is None else cache / f"{_key(samples, preprocess)}.npz"
    found = _load(kept, samples) if kept is not None else None
    if found is None:
        found = _collect(samples, stream(dataset, samples, preprocess, workers), advance)
        if kept is not None:
            _keep(kept, found)
    else:
        advance(len(samples))
    if found.skipped and (strict or not found.samples):
        first = found.skipped[0]
        raise DataUnavailable(
            f"dataset {dataset.name!r}: {len(found.skipped)} of {len(samples)} images can't be read; {first.reason}"
        )
    return found


def stream(
    dataset: Dataset, samples: Sequence[Sample], preprocess: Preprocess, workers: int = 0
) -> Iterator[NDArray[np.uint8] | Skipped]:
    """Each sample's pixels (crop, crop, C), in order, or why it was skipped. Holds few of them at a time."""
    if workers == 0:
        for sample in samples:
            yield _decode(dataset, sample, preprocess)
        return
    chunks = (samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK))
    # forkserver: a process that has loaded torch or a runtime has threads, and must not be forked
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        waiting = [pool.submit(_decode_chunk, dataset, chunk, preprocess) for chunk in islice(chunks, 2 * workers)]
        while waiting:
            yield from waiting.pop(0).result()
            waiting += [pool.submit(_decode_chunk, dataset, chunk, preprocess) for chunk in islice(chunks, 1)]


def worker_count(dataset: Dataset, samples: Sequence[Sample], preprocess: Preprocess) -> int:
    """How many processes pay off: none where decoding all samples here, as long as the first few take, is soon done."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or len(samples) <= PROBED:
        return 0
    began = perf_counter()
    for sample in samples[:PROBED]:
        _decode(dataset, sample, preprocess)
    return 0 if (perf_counter() - began) * len(samples) / PROBED < WORTH_SECONDS else cores


def _decode_chunk(
    dataset: Dataset, samples: Sequence[Sample], preprocess: Preprocess
) -> list[NDArray[np.uint8] | Skipped]:
    return [_decode(dataset, sample, preprocess) for sample in samples]


def _decode(dataset: Dataset, sample: Sample, preprocess: Preprocess) -> NDArray[np.uint8] | Skipped:
    try:
        return cropped(preprocess, dataset.image(sample))
    except DataUnavailable as error:
        return Skipped(id=sample.id, reason=str(error))


def _collect(samples: Sequence[Sample], results: Iterator[NDArray[np.uint8] | Skipped], advance: Advance) -> Decoded:
    read: list[Sample] = []
    pixels: list[NDArray[np.uint8]] = []
    skipped: list[Skipped] = []
    for sample, result in zip(samples, results, strict=True):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            read.append(sample)
            pixels.append(result)
        advance(1)
    stacked = np.stack(pixels) if pixels else np.empty((0,), np.uint8)
    return Decoded(samples=tuple(read), pixels=stacked, skipped=tuple(skipped))


def _key(samples: Sequence[Sample], preprocess: Preprocess) -> str:
    geometry = (preprocess.mode, preprocess.resize, preprocess.crop, preprocess.interpolation, preprocess.squash)
    return digest_of((sample_list_digest(samples), geometry, version("pillow")))


def _load(path: Path, samples: Sequence[Sample]) -> Decoded | None:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            pixels, left_out = (
                file["pixels"],
                dict(zip(file["skipped"].tolist(), file["reasons"].tolist(), strict=True)),
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None  # not there, or damaged: decoded anew, and written over
    read = tuple(sample for sample in samples if sample.id not in left_out)
    skipped = tuple(Skipped(id=name, reason=reason) for name, reason in left_out.items())
    return Decoded(samples=read, pixels=pixels, skipped=skipped) if len(read) == len(pixels) else None


def _keep(path: Path, found: Decoded) -> None:
    ids, reasons = [one.id for one in found.skipped], [one.reason for one in found.skipped]
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, pixels=found.pixels, skipped=np.array(ids, np.str_), reasons=np.array(reasons, np.str_))
