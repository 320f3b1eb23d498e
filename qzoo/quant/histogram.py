"""Streaming statistics of a tensor's magnitude, and the solvers that turn them into an amax.

One pass over the data serves every solver. The histogram covers [0, 2^k] with a fixed number of bins; when a larger
value comes, k grows and neighbouring bins are added up. Bin edges are therefore the same whatever the order of the
batches, counts are exact integers, and two histograms of the same tensor can be merged.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, frexp, isfinite

import torch
from torch import Tensor

from qzoo.errors import CalibrationError
from qzoo.spec import TRAINED, parse_calibrator

BINS = 8192
"""At least half of the bins lie below the largest value seen, so an amax is resolved to 1/4096 of it."""


class Collector:
    """Collects |x| over any number of batches of one tensor, in memory that does not depend on how many."""

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.exponent: int | None = None  # the histogram covers [0, 2^exponent]
        self.max = 0.0
        self.elements = 0

    @property
    def width(self) -> float:
        """The width of a bin, in the tensor's units."""
        return 0.0 if self.exponent is None else 2.0**self.exponent / BINS

    def collect(self, x: Tensor) -> None:
        """Count one batch. A value that is not finite is remembered in `max` and makes every solver fail."""
        magnitude = x.detach().abs()
        batch_max = float(magnitude.max())
        self.elements += magnitude.numel()
        if not isfinite(batch_max) or not isfinite(self.max):
            self.max = batch_max if not isfinite(batch_max) else self.max
            return
        self.max = max(self.max, batch_max)
        if batch_max > 0:
            self._cover(batch_max)
        if self.exponent is None:
            self.counts[0] += magnitude.numel()
            return
        self.counts += torch.histc(magnitude, BINS, 0.0, 2.0**self.exponent).to(torch.int64)

    def merge(self, other: Collector) -> None:
        """Add another collector's counts, as if its batches had been collected here."""
        self.max, self.elements = max(self.max, other.max), self.elements + other.elements
        if other.exponent is None:
            self.counts[0] += other.counts[0]
            return
        self._cover(2.0**other.exponent)
        shift = (self.exponent or 0) - other.exponent
        self.counts += _coarsen(other.counts, shift)

    def _cover(self, value: float) -> None:
        mantissa, exponent = frexp(value)
        exponent -= mantissa == 0.5
        if self.exponent is None:
            self.exponent = exponent
        elif exponent > self.exponent:
            self.counts = _coarsen(self.counts, exponent - self.exponent)
            self.exponent = exponent


def _coarsen(counts: Tensor, doublings: int) -> Tensor:
    """The same counts over a range 2^doublings times as wide."""
    if doublings == 0:
        return counts
    group = 2 ** min(doublings, BINS.bit_length() - 1)
    merged = counts.reshape(-1, group).sum(1)
    return torch.cat([merged, merged.new_zeros(BINS - merged.numel())])


def percentile_amax(collector: Collector, percentile: float) -> float:
    """The smallest upper bin edge below which at least `percentile` per cent of the magnitudes lie.

    Zeros count, as in pytorch-quantization's percentile calibrator, whose definition this is.
    """
    wanted = ceil(collector.elements * percentile / 100)
    index = int(torch.searchsorted(collector.counts.cumsum(0), torch.tensor(max(wanted, 1))))
    return min(collector.max, (index + 1) * collector.width)


Solver = Callable[[Collector], float]


def solver(name: str) -> Solver:
    """The solver that `--calib` names, in the form of `qzoo.spec.parse_calibrator`.

    It raises CalibrationError where the collector saw nothing, or a value that is not finite.
    """
    method, argument = parse_calibrator(name)
    if method == TRAINED:
        raise CalibrationError("ranges that were trained come with weights, not from data")

    def solve(collector: Collector) -> float:
        if collector.elements == 0:
            raise CalibrationError("no data reached the quantizer; is its module called by the network's forward?")
        if not isfinite(collector.max):
            raise CalibrationError(f"it saw the value {collector.max}; check the weights and the preprocessing")
        return collector.max if method == "max" or argument is None else percentile_amax(collector, argument)

    return solve
