"""Streaming histograms of magnitudes, and the amax that is solved from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qzoo.errors import CalibrationError, UnknownName, UsageError
from qzoo.quant.histogram import BINS, Collector, percentile_amax, solver

MAGNITUDES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
SAMPLES = hnp.arrays(np.float32, st.integers(1, 200), elements=MAGNITUDES)
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)


def collected(*batches: np.ndarray) -> Collector:
    collector = Collector()
    for batch in batches:
        collector.collect(torch.from_numpy(batch))
    return collector


def same(a: Collector, b: Collector) -> bool:
    return torch.equal(a.counts, b.counts) and (a.exponent, a.max, a.elements) == (b.exponent, b.max, b.elements)


@PROPERTY
@given(SAMPLES, st.integers(0, 200), st.randoms(use_true_random=False))
def test_neither_the_order_nor_the_batches_matter(values, cut, random):
    shuffled = values.copy()
    random.shuffle(shuffled)
    parts = [part for part in np.split(shuffled, [min(cut, len(values))]) if len(part)]
    assert same(collected(values), collected(*parts))


@PROPERTY
@given(SAMPLES, SAMPLES)
def test_merging_is_collecting_both(a, b):
    merged = collected(a)
    merged.merge(collected(b))
    assert same(merged, collected(a, b))


@PROPERTY
@given(SAMPLES)
def test_every_value_is_counted_once_and_the_maximum_is_exact(values):
    collector = collected(values)
    assert int(collector.counts.sum()) == collector.elements == len(values)
    assert collector.max == np.abs(values).max()


@PROPERTY
@given(SAMPLES, st.floats(1, 100))
def test_a_percentile_covers_what_it_says_to_within_a_bin(values, percentile):
    collector = collected(values)
    amax = percentile_amax(collector, percentile)
    ordered = np.sort(np.abs(values).astype(np.float64))
    wanted = ordered[int(np.ceil(len(values) * percentile / 100)) - 1]
    assert wanted - 1e-6 * collector.max <= amax <= wanted + collector.width * (1 + 1e-6)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99])
def test_a_percentile_is_the_toolkits_to_within_both_bins(percentile):
    from pytorch_quantization.calib import HistogramCalibrator

    import qzoo.quant.toolkit  # noqa: F401 - imports the toolkit without its warnings

    x = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    reference = HistogramCalibrator(num_bits=8, axis=None, unsigned=False, num_bins=4096)
    reference.collect(x)
    theirs = float(reference.compute_amax("percentile", percentile=percentile))
    collector = collected(x.numpy())
    assert abs(percentile_amax(collector, percentile) - theirs) <= collector.width + float(x.abs().max()) / 4096


def test_max_is_the_maximum():
    assert solver("max")(collected(np.array([1.0, -3.5, 2.0], np.float32))) == 3.5


def test_at_least_half_of_the_bins_lie_below_the_maximum():
    collector = collected(np.linspace(0, 1.01, 10_000, dtype=np.float32))
    assert collector.max / collector.width >= BINS / 2


def test_all_zeros_give_zero():
    collector = collected(np.zeros(10, np.float32))
    assert solver("max")(collector) == solver("percentile")(collector) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["max", "percentile:99"])
def test_a_value_that_is_not_finite_is_remembered_whatever_follows(bad, name):
    collector = collected(np.array([1.0, bad], np.float32), np.array([5.0], np.float32))
    with pytest.raises(CalibrationError, match=r"nan|inf"):
        solver(name)(collector)


def test_no_data_is_an_error():
    with pytest.raises(CalibrationError, match="no data reached"):
        solver("max")(Collector())


def test_an_unknown_calibrator_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean percentile"):
        solver("percentil")


@pytest.mark.parametrize(
    "text", ["percentile:", "percentile:0", "percentile:101", "percentile:x", "percentile:nan", "max:3"]
)
def test_a_bad_argument_is_a_usage_error(text):
    if text == "percentile:":
        assert solver(text)(collected(np.ones(3, np.float32))) == 1
        return
    with pytest.raises(UsageError) as raised:
        solver(text)
    assert raised.value.exit_code == 2
