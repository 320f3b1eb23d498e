"""What one pass over the data leaves: kept, continued, and added up over processes."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qzoo.errors import CalibrationError, IntegrityError, UnknownName
from qzoo.quant.calibrate import calibrate, calibrate_weights, solve
from qzoo.quant.histogram import Collector
from qzoo.quant.modules import QuantConv2d, QuantLinear
from qzoo.quant.statistics import Statistics, collect
from qzoo.quant.toolkit import TensorQuantizer
from qzoo.spec import COMPARED_CALIBRATORS

BATCHES = [scale * torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(scale)) for scale in range(1, 7)]


def network(classes: int = 2) -> nn.Module:
    """The same one in every process."""
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)
    made = nn.Sequential(
        QuantConv2d.from_float(convolution, 0),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        QuantLinear.from_float(linear, 0),
    ).eval()
    calibrate_weights(made)
    return made


def collect_and_save(indices: list[int], path: Path) -> None:
    collect(network(), [BATCHES[index] for index in indices]).save(path)


def same(a: Statistics, b: Statistics) -> bool:
    return (
        a.samples == b.samples
        and a.collectors.keys() == b.collectors.keys()
        and all(
            state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)
            for state, other in ((a.collectors[path].state(), b.collectors[path].state()) for path in a.collectors)
        )
    )


@pytest.fixture(scope="module")
def whole() -> Statistics:
    return collect(network(), BATCHES)


def test_half_saved_loaded_and_continued_counts_as_one_pass_does(whole, tmp_path):
    collect_and_save([0, 1, 2], tmp_path / "half")
    resumed = collect(network(), BATCHES[3:], Statistics.load(tmp_path / "half"))
    assert same(resumed, whole)
    assert resumed.samples == 24


@settings(max_examples=20, deadline=None, derandomize=True)
@given(order=st.permutations(range(6)), cut=st.integers(0, 6))
def test_whatever_the_order_and_the_parts_they_add_up_to_one_pass(whole, order, cut):
    first, second = (collect(network(), [BATCHES[i] for i in part]) for part in (order[:cut], order[cut:]))
    first.merge(second)
    assert same(first, whole)


def test_what_two_processes_collected_adds_up_to_one_pass(whole, tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(collect_and_save, [[5, 1, 3], [0, 4, 2]], [tmp_path / "a", tmp_path / "b"]))
    merged = Statistics.load(tmp_path / "a")
    merged.merge(Statistics.load(tmp_path / "b"))
    assert same(merged, whole)


def test_every_calibrator_is_solved_from_one_pass_over_the_data(whole):
    model = network()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    model.register_forward_hook(count)
    statistics = collect(model, iter(BATCHES))
    tables = [solve(model, statistics, name, "") for name in COMPARED_CALIBRATORS]
    assert calls == len(BATCHES)
    assert tables == [calibrate(network(), BATCHES, name, "") for name in COMPARED_CALIBRATORS]


def test_memory_does_not_grow_with_the_samples(whole):
    sizes = [sum(c.counts.nbytes for c in found.collectors.values()) for found in (whole, Statistics.of(network()))]
    assert sizes[0] == sizes[1] == 2 * 8192 * 8


def test_statistics_of_another_network_are_refused(whole):
    other = nn.Sequential(network(), QuantLinear.from_float(nn.Linear(2, 2), 0))
    with pytest.raises(CalibrationError, match="of another network"):
        collect(other, [], whole)
    with pytest.raises(CalibrationError, match="of another network"):
        whole.merge(Statistics.of(other))


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_a_file_that_holds_no_statistics_is_refused_by_name(damage, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "statistics"
    collect_and_save([0], path)
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        save_file({"x": torch.zeros(3)}, path)
    else:
        path.write_bytes(path.read_bytes()[: -100 if damage == "cut" else 0])
    with pytest.raises(IntegrityError, match=r"statistics holds no statistics.*collect them anew"):
        Statistics.load(path)


def test_an_unknown_calibrator_is_refused_before_the_data_is_read():
    def never():
        raise AssertionError("was read")
        yield

    with pytest.raises(UnknownName):
        calibrate(network(), never(), "entrophy", "")


class _Twice(nn.Module):
    """One tensor, read by two quantizers; the second time, where `between` is given, after that has changed it."""

    def __init__(self, between=None) -> None:
        super().__init__()
        self.first, self.second = TensorQuantizer("input"), TensorQuantizer("skip")
        self.between = between

    def forward(self, x):
        y = x * 2
        first = self.first(y)
        if self.between is not None:
            self.between(y)
        return first + self.second(y)


def test_a_tensor_that_two_quantizers_read_is_counted_for_both():
    batches = [torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    found = collect(_Twice(), batches)
    expected = Collector()
    for batch in batches:
        expected.collect(2 * batch)
    for collector in found.collectors.values():
        assert torch.equal(collector.counts, expected.counts)
        assert collector.elements == 30


def test_a_tensor_that_was_written_to_in_between_is_counted_anew():
    batch = torch.tensor([[1.0, -2.0]])
    found = collect(_Twice(lambda y: y.relu_()), [batch])
    assert (found.collectors["first"].max, found.collectors["second"].max) == (4.0, 2.0)
