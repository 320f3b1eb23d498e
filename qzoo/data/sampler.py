"""Chooses which samples calibrate or evaluate a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qzoo.data.stratify import shares
from qzoo.errors import DataUnavailable, UsageError
from qzoo.hookspecs import Dataset, Sample, Split
from qzoo.records import digest_of


@runtime_checkable
class Labelled(Protocol):
    """A sequence of samples that knows their labels without making the samples."""

    labels: Sequence[int | None]


def choose(dataset: Dataset, split: Split, count: int, seed: int) -> tuple[Sample, ...]:
    """`count` samples of a split, in proportion to its classes, in a shuffled order that `seed` decides.

    A split that holds fewer gives all it has; the caller reports that. Raises UsageError for count <= 0,
    DataUnavailable for an empty split.
    """
    return choose_apart(dataset, split, count, 0, seed)[0]


def choose_apart(
    dataset: Dataset, split: Split, count: int, apart: int, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """What `choose` gives, and up to `apart` other samples of the same split, in proportion to the classes of the rest.

    Raises as `choose`.
    """
    if count <= 0:
        raise UsageError(f"the number of samples must be at least 1, got {count}")
    samples = dataset.samples(split)
    if not samples:
        raise DataUnavailable(f"dataset {dataset.name!r} has no {split} samples")
    by_label: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels_of(samples)):
        by_label[-1 if label is None else label].append(index)
    quota = shares({label: len(by_label[label]) for label in sorted(by_label)}, min(count, len(samples)))
    generator = np.random.default_rng(seed)
    shuffled = {label: generator.permutation(by_label[label]) for label in quota}
    rest = {label: len(shuffled[label]) - quota[label] for label in quota}
    others = shares(rest, min(apart, sum(rest.values()))) if any(rest.values()) else rest
    chosen = np.concatenate([shuffled[label][: quota[label]] for label in quota])
    beside = np.concatenate([shuffled[label][quota[label] :][: others[label]] for label in quota])
    return _in_order(samples, generator.permutation(chosen)), _in_order(samples, generator.permutation(beside))


def _in_order(samples: Sequence[Sample], indices: NDArray[np.int64]) -> tuple[Sample, ...]:
    return tuple(samples[int(index)] for index in indices)


def sample_list_digest(samples: Iterable[Sample]) -> str:
    """SHA-256 of the canonical JSON of every (id, digest, label), in order."""
    return digest_of([(sample.id, sample.sha256, sample.label) for sample in samples])


def labels_of(samples: Sequence[Sample]) -> Sequence[int | None]:
    """The label of each sample, without reading the samples where that is possible."""
    return samples.labels if isinstance(samples, Labelled) else [sample.label for sample in samples]
