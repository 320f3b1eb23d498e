"""Proportional shares of classes, and the split that a dataset without one of its own gets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Sample, Split

K = TypeVar("K")

HELD_OUT_FRACTION = 0.2


def shares(sizes: Mapping[K, int], count: int) -> dict[K, int]:
    """How many of `count` each class gets, by the method of largest remainders: never 1 or more off proportional.

    `count` is at most the sum of the sizes. Ties go to the class that comes first in `sizes`.
    """
    total = sum(sizes.values())
    result = {key: count * size // total for key, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda key: -(count * sizes[key] % total))
    for key in by_remainder[: count - sum(result.values())]:
        result[key] += 1
    return result


def held_out_digests(samples: Iterable[Sample], count: int, seed: int = 0) -> frozenset[str]:
    """The content digests to hold out: `count` distinct images, in proportion to the classes.

    Within a class the images rank by the SHA-256 of "seed/digest", so the split depends on content alone: not on the
    order of the samples, and not on any library's random numbers. Two copies of an image are never split up.
    """
    label_of: dict[str, int] = {}
    for sample in sorted(samples, key=lambda sample: sample.id):
        label_of.setdefault(sample.sha256, -1 if sample.label is None else sample.label)
    quota = shares(dict(sorted(Counter(label_of.values()).items())), count)
    chosen = []
    for digest in sorted(label_of, key=lambda digest: hashlib.sha256(f"{seed}/{digest}".encode()).digest()):
        if quota[label_of[digest]] > 0:
            quota[label_of[digest]] -= 1
            chosen.append(digest)
    return frozenset(chosen)


def split_by_content(samples: Sequence[Sample], source: str) -> dict[Split, Sequence[Sample]]:
    """The splits of a dataset without its own: a fifth of the images held out, in proportion to the classes.

    Raises DataUnavailable, naming `source`, for fewer than two distinct images.
    """
    distinct = {sample.sha256 for sample in samples}
    if len(distinct) < 2:
        raise DataUnavailable(
            f"data: {source} holds {len(distinct)} distinct image; at least 2 are needed, one held out"
        )
    held_out = held_out_digests(samples, max(1, round(HELD_OUT_FRACTION * len(distinct))))
    return {
        "calibration": tuple(sample for sample in samples if sample.sha256 not in held_out),
        "held-out": tuple(sample for sample in samples if sample.sha256 in held_out),
    }
