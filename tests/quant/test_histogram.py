"""Streaming histograms of magnitudes: exact, whatever the order and wherever their parts were counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qzoo.errors import IntegrityError
from qzoo.quant.histogram import BINS, Collector

POWERS = st.integers(-149, 127).map(lambda k: 2.0**k)  # on the edges of bins, and where the range doubles
MAGNITUDES = st.floats(-1e6, 1e6, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False) | POWERS
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
    merged, other_way_round = collected(a), collected(b)
    merged.merge(collected(b))
    other_way_round.merge(collected(a))
    assert same(merged, collected(a, b))
    assert same(other_way_round, collected(a, b))


@PROPERTY
@given(SAMPLES)
def test_every_value_is_counted_once_and_the_maximum_is_exact(values):
    collector = collected(values)
    assert int(collector.counts.sum()) == collector.elements == len(values)
    assert collector.max == np.abs(values).max()


def test_at_least_half_of_the_bins_lie_below_the_maximum():
    collector = collected(np.linspace(0, 1.01, 10_000, dtype=np.float32))
    assert collector.max / collector.width >= BINS / 2


@PROPERTY
@given(SAMPLES)
def test_each_value_is_counted_in_the_bin_that_it_lies_in(values):
    collector = collected(values)
    if collector.exponent is None:
        assert not values.any()
        return
    places = np.floor(np.abs(values).astype(np.float64) / collector.width).astype(np.int64)
    assert np.array_equal(collector.counts.numpy(), np.bincount(places, minlength=BINS))


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(0, 3),
        lambda x: x[:, ::2, 1:],
        lambda x: x[:, :1].expand(-1, 5, -1, -1),
        lambda x: x[0, 0, 0, 0],
    ],
    ids=["channels last", "transposed", "with gaps", "expanded", "a scalar"],
)
def test_the_layout_in_memory_does_not_matter(layout):
    x = layout(torch.from_numpy(np.random.default_rng(0).normal(size=(3, 8, 40, 50)).astype(np.float32)))
    collector = Collector()
    collector.collect(x)
    assert same(collector, collected(x.numpy().copy()))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_does_not_matter(threads):
    values, before = np.random.default_rng(0).normal(size=200_001).astype(np.float32), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        collector = collected(values)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    places = (np.abs(values) / collector.width).astype(np.int64)  # exact: the width is a power of two
    assert np.array_equal(collector.counts.numpy(), np.bincount(places, minlength=BINS))


def test_more_values_in_one_bin_than_a_float32_can_count_are_all_counted():
    collector = Collector()
    collector.collect(torch.full((2**24 + 3,), 0.75))
    assert collector.counts[BINS * 3 // 4] == 2**24 + 3


@PROPERTY
@given(SAMPLES, SAMPLES)
def test_a_collector_goes_on_from_its_state(a, b):
    resumed = Collector.from_state(collected(a).state())
    resumed.collect(torch.from_numpy(b))
    assert same(resumed, collected(a, b))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_remembered_by_what_is_merged(bad):
    good, worse = collected(np.ones(3, np.float32)), collected(np.array([bad], np.float32))
    for first, second in ((good, worse), (worse, good)):
        merged = Collector.from_state(first.state())
        merged.merge(second)
        assert not np.isfinite(merged.max)


@pytest.mark.parametrize("name", ["counts", "max", "elements"])
def test_a_state_that_lacks_a_part_is_refused(name):
    state = collected(np.ones(3, np.float32)).state()
    del state[name]
    with pytest.raises(IntegrityError, match=f"without its {name}"):
        Collector.from_state(state)


def test_a_state_of_other_bins_is_refused():
    state = collected(np.ones(3, np.float32)).state()
    with pytest.raises(IntegrityError, match=r"of \(4,\)"):
        Collector.from_state({**state, "counts": state["counts"][:4]})
