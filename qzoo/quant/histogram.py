"""Streaming statistics of a tensor's magnitude, from which every solver of `qzoo.quant.solvers` finds an amax.

The histogram covers [0, 2^k) with a fixed number of bins; when a larger value comes, k grows and neighbouring bins are
added up. Bin edges are therefore the same whatever the order of the batches, counts are exact integers, and histograms
of the same tensor that were collected apart, in other processes too, add up to the one of all their batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from math import frexp, isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qzoo.errors import IntegrityError

BINS = 8192
"""At least half of the bins lie below the largest value seen, so an amax is resolved to 1/4096 of it."""
MIN_EXPONENT = -100
"""The histogram never covers less than [0, 2^-100), so that a bin is as wide as a normal float32."""
_PIECE = 2**17
"""Elements counted at a time: few enough to stay in a core's caches, and work enough for a thread to be woken for."""


class Collector:
    """Collects |x| over any number of batches of one tensor, in memory that does not depend on how many."""

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.exponent: int | None = None  # the histogram covers [0, 2^exponent)
        self.max = 0.0
        self.elements = 0

    @property
    def width(self) -> float:
        """The width of a bin, in the tensor's units."""
        return 0.0 if self.exponent is None else 2.0**self.exponent / BINS

    @property
    def filled(self) -> NDArray[np.int64]:
        """The counts up to the last bin that holds a value, (bins,): bin i is of [i, i + 1) x `width`."""
        counts: NDArray[np.int64] = self.counts.numpy()
        return counts[: int(counts.nonzero()[0].max(initial=0)) + 1]

    def collect(self, x: Tensor) -> None:
        """Count one batch. A value that is not finite is remembered in `max` and makes every solver fail."""
        self.merge(Collector.of(x))

    @classmethod
    def of(cls, x: Tensor) -> Collector:
        """What one tensor holds. It may be merged into several collectors that see the same tensor."""
        made, values = cls(), _as_stored(x.detach())
        low, high = torch.aminmax(values)
        made.elements, made.max = values.numel(), float(torch.maximum(-low, high))  # NaN if one is
        if not isfinite(made.max):
            return made
        if made.max == 0:
            made.counts[0] = values.numel()
            return made
        made.exponent = _exponent_of(made.max)
        made.counts = _counted(values, BINS * 2.0**-made.exponent)
        return made

    def merge(self, other: Collector) -> None:
        """Add another collector's counts, as if its batches had been collected here."""
        self.elements += other.elements
        self._raise_max(other.max)
        if other.exponent is None:
            self.counts = self.counts + other.counts
            return
        self._cover(other.exponent)
        self.counts = self.counts + _coarsen(other.counts, (self.exponent or 0) - other.exponent)

    def state(self) -> dict[str, Tensor]:
        """All of it as tensors, so that collecting can be continued later or elsewhere: see `from_state`."""
        found = {
            "counts": self.counts,
            "max": torch.tensor(self.max, dtype=torch.float64),
            "elements": torch.tensor(self.elements),
        }
        return found if self.exponent is None else {**found, "exponent": torch.tensor(self.exponent)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Collector:
        """The collector whose `state()` it was. Raises IntegrityError where it is none."""
        made = cls()
        missing = {"counts", "max", "elements"} - state.keys()
        if missing:
            raise IntegrityError(f"a histogram's state without its {min(missing)}")
        counts = state["counts"]
        if counts.shape != (BINS,) or counts.dtype != torch.int64:
            raise IntegrityError(f"a histogram of {tuple(counts.shape)} {counts.dtype}, not of {BINS} int64")
        made.counts, made.max, made.elements = counts.clone(), float(state["max"]), int(state["elements"])
        made.exponent = int(state["exponent"]) if "exponent" in state else None
        return made

    def _raise_max(self, value: float) -> None:
        # not a plain maximum: one of NaN and a number is whichever comes first
        self.max = value if not isfinite(value) else max(self.max, value) if isfinite(self.max) else self.max

    def _cover(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent
        elif exponent > self.exponent:
            self.counts = _coarsen(self.counts, exponent - self.exponent)
            self.exponent = exponent


def _as_stored(x: Tensor) -> Tensor:
    """All elements in the order they have in memory, whatever the layout: of a tensor without gaps no copy."""
    return x.permute(sorted(range(x.dim()), key=x.stride, reverse=True)).flatten()


def _counted(values: Tensor, factor: float) -> Tensor:
    """How many of |values| * factor lie in [i, i + 1), for every bin i. Exact where factor is a power of 2.

    torch.bincount runs on one core only, so each core has a thread that counts a share of the values.
    """
    cores = torch.get_num_threads()
    count = min(cores, -(-values.numel() // _PIECE))  # a smaller share isn't worth a thread
    if count == 1 or values.device.type != "cpu":
        return _counted_here(values, factor)
    share, *shares = torch.chunk(values, count)
    torch.set_num_threads(1)  # or each thread's operators would start threads of their own
    try:
        with ThreadPoolExecutor(len(shares)) as threads:
            others = threads.map(_counted_here, shares, repeat(factor))
            return sum(others, start=_counted_here(share, factor))
    finally:
        torch.set_num_threads(cores)


def _counted_here(values: Tensor, factor: float) -> Tensor:
    """`_counted` on the calling thread, in buffers that every piece is put in."""
    counts = torch.zeros(BINS, dtype=torch.int64)
    scaled = values.new_empty(min(_PIECE, values.numel()))
    bins = torch.empty_like(scaled, dtype=torch.int32)
    for piece in torch.split(values, _PIECE):
        n = piece.numel()
        torch.abs(piece, out=scaled[:n]).mul_(factor)
        counts += torch.bincount(bins[:n].copy_(scaled[:n]), minlength=BINS).to("cpu")
    return counts


def _exponent_of(value: float) -> int:
    """The smallest k for which value < 2^k, or MIN_EXPONENT."""
    return max(frexp(value)[1], MIN_EXPONENT)


def _coarsen(counts: Tensor, doublings: int) -> Tensor:
    """The same counts over a range 2^doublings times as wide."""
    if doublings == 0:
        return counts
    group = 2 ** min(doublings, BINS.bit_length() - 1)
    merged = counts.reshape(-1, group).sum(1)
    return torch.cat([merged, merged.new_zeros(BINS - merged.numel())])
