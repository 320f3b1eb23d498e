"""Solvers: from a histogram of magnitudes to the amax that clamps best, by what each method calls best.

`counts` are (bins,) integers, `width` is a bin's width: bin i is of [i, i + 1) x width, its centre (i + 1/2) x width.
Definitions are those of pytorch-quantization 2.1.3 (`pytorch_quantization/calib/histogram.py`, num_bits=8, stride 1),
which searches with one pass over the histogram per candidate. Here sums over ranges of bins are differences of
cumulative sums, so that all candidates are computed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, isfinite

import numpy as np
from numpy.typing import NDArray

from qzoo.errors import CalibrationError
from qzoo.quant.histogram import BINS, Collector
from qzoo.spec import AUTO, TRAINED, parse_calibrator

LEVELS = 128
"""Magnitudes that int8 tells apart, as pytorch-quantization counts them: 2^7. The largest one is QMAX = 127."""
QMAX = LEVELS - 1
START = 128
"""The smallest amax that mse and entropy consider, in bins: below it there would be less than a bin per level."""

Solver = Callable[[Collector], float]
Counts = NDArray[np.int64]


def percentile_amax(collector: Collector, percentile: float) -> float:
    """The smallest upper bin edge below which at least `percentile` per cent of the magnitudes lie.

    Zeros count, as in pytorch-quantization's percentile calibrator, whose definition this is.
    """
    wanted = ceil(collector.elements * percentile / 100)
    index = int(np.searchsorted(collector.filled.cumsum(), max(wanted, 1)))
    return (index + 1) * collector.width


def mse_amax(counts: Counts, width: float) -> float:
    """The bin centre, as amax, with the least mean squared error of quantizing the bin centres x, each `counts` times.

    sum over bins of count x (q(x) - x)^2, where q(x) = s x min(round(x / s), 127), s = amax / 127. At least 129 bins.
    The bins that q takes to level k or above are those from some b_k on. With M_p(b) = the sum of count x^p over bins
    b and above, the error is M_2(0) - 2 s sum M_1(b_k) + s^2 sum (2k - 1) M_0(b_k), both sums over k = 1..127.
    """
    weights = counts.astype(np.float64)
    centres = 2 * np.arange(len(counts)) + 1.0  # here and below in half bins
    zeroth, first = _from_here_on(weights), _from_here_on(weights * centres)
    candidates = np.arange(START, len(counts))
    step = (2 * candidates + 1) / QMAX
    bins = _level_bins()[: len(candidates)]
    errors = (
        float((weights * centres**2).sum())
        - 2 * step * first[bins].sum(1)
        + step**2 * (zeroth[bins] @ (2.0 * np.arange(1, LEVELS) - 1))
    )
    return (int(candidates[errors.argmin()]) + 0.5) * width


def entropy_amax(counts: Counts, width: float) -> float:
    """The upper bin edge, as amax, with the least Kullback-Leibler divergence of the quantized histogram.

    Migacz 2017, "8-bit inference with TensorRT" (GTC talk S7310). For the first i bins, P is the histogram with all
    that lies beyond added to bin i - 1; Q is each of 128 equal groups' counts spread evenly over its bins that aren't
    empty; the divergence is sum P log(P / Q), both normalized. Bin 0, mostly exact zeros, counts as much as bin 1. Of
    equal candidates the largest is taken. At least 129 bins, the last one not empty.

    A candidate with no value in its last bin but some beyond it diverges without bound, and so does one below which
    nothing lies (there the toolkit's divergence is not a number, and it would take that candidate).
    """
    values = counts.astype(np.float64)
    values[0] = values[1]
    candidates = np.arange(START, len(values) + 1)
    edges = _group_edges()[: len(candidates)]
    below, n_log_n = _before_here(values), values * np.log(np.maximum(values, 1))
    group, occupied = np.diff(below[edges]), np.diff(_before_here(values > 0)[edges])
    log_mean = np.log(np.maximum(group, 1)) - np.log(np.maximum(occupied, 1))
    total, kept, last = below[-1], below[candidates], values[candidates - 1]
    beyond = total - kept
    clamped = np.where(last > 0, last + beyond, 1.0)
    p_log_p = _before_here(n_log_n)[candidates] - n_log_n[candidates - 1] + clamped * np.log(clamped)
    p_log_q = (group * log_mean).sum(1) + beyond * log_mean[:, -1]
    divergence = (p_log_p - p_log_q) / total + np.log(np.maximum(kept, 1) / total)
    divergence[(last == 0) & (beyond > 0)] = np.inf
    return (len(values) - int(divergence[::-1].argmin())) * width


def solver(name: str) -> Solver:
    """The solver that `--calib` names, in the form of `qzoo.spec.parse_calibrator`.

    It raises CalibrationError where the collector saw nothing, or a value that is not finite.
    """
    method, argument = parse_calibrator(name)
    if method in (TRAINED, AUTO):
        raise CalibrationError(f"{method} solves nothing: name max, percentile, mse or entropy")

    def solve(collector: Collector) -> float:
        if collector.elements == 0:
            raise CalibrationError("no data reached the quantizer; is its module called by the network's forward?")
        if not isfinite(collector.max):
            raise CalibrationError(f"it saw the value {collector.max}; check the weights and the preprocessing")
        return min(collector.max, _solve(collector, method, argument))

    return solve


def _solve(collector: Collector, method: str, argument: float | None) -> float:
    if argument is not None:
        return percentile_amax(collector, argument)
    counts = collector.filled
    if method == "max" or len(counts) <= START:  # all zeros, or as good as that
        return collector.max
    return (mse_amax if method == "mse" else entropy_amax)(counts, collector.width)


def _before_here(values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """(bins + 1,): the sum of all values before each place."""
    return np.concatenate([[0.0], values.cumsum(dtype=np.float64)])


def _from_here_on(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(bins + 1,): the sum of all values from each place on."""
    return np.concatenate([values[::-1].cumsum()[::-1], [0.0]])


@lru_cache(maxsize=1)
def _group_edges() -> NDArray[np.intp]:
    """(candidates, 129): where each of 128 equal groups of the first START, START + 1, ... bins begins, and the end."""
    candidates = np.arange(START, BINS + 1)
    return (np.multiply.outer(candidates, np.arange(LEVELS + 1)) + LEVELS - 1) // LEVELS


@lru_cache(maxsize=1)
def _level_bins() -> NDArray[np.intp]:
    """(candidates, 127): with the centre of bin START, START + 1, ... as amax, the first bin that goes to 1, ..., 127.

    Bin j goes to level k or above if 2j + 1 > (k - 1/2)(2i + 1) / 127. The right side is an odd number over 254, so no
    centre lies half-way, and the distance to an integer is far more than a rounding error.
    """
    candidates, levels = np.arange(START, BINS), np.arange(1, LEVELS)
    bounds = np.multiply.outer(2 * candidates + 1, (2 * levels - 1) / (2 * QMAX))
    found: NDArray[np.intp] = ((bounds + 1) / 2).astype(np.intp)
    return found
