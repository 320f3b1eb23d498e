"""Each method's amax, beside pytorch-quantization's own search given the same counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import qzoo.quant.toolkit  # noqa: F401 - imports the toolkit without its warnings
from qzoo.errors import CalibrationError, UnknownName, UsageError
from qzoo.pipeline import Options, make_plan
from qzoo.pipeline.forward import batches_of, few
from qzoo.pipeline.images import read_calibration
from qzoo.pipeline.network import load_network
from qzoo.pipeline.progress import Silent
from qzoo.quant.calibrate import calibrate_weights
from qzoo.quant.histogram import BINS, Collector
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.solvers import entropy_amax, mse_amax, percentile_amax, solver
from qzoo.quant.statistics import Statistics, collect

MAGNITUDES = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
SAMPLES = hnp.arrays(np.float32, st.integers(1, 200), elements=MAGNITUDES)
HISTOGRAMS = hnp.arrays(np.int64, st.integers(130, 200), elements=st.integers(1, 10**6))
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)
SEARCH = settings(max_examples=10, deadline=None, derandomize=True)
VALUES = 200_000


def drawn(name: str) -> np.ndarray:
    """200,000 values of a distribution."""
    draw = np.random.default_rng(0)
    normal = draw.standard_normal(VALUES)
    made = {
        "Gaussian": normal,
        "Laplace": draw.laplace(size=VALUES),
        "ReLU'd": np.maximum(normal, 0),
        "bimodal": np.where(draw.random(VALUES) < 0.5, 0.5 * normal, 4 + 0.7 * normal),
        "heavy-tailed": draw.standard_t(3, size=VALUES),
    }
    return made[name].astype(np.float32)


def collected(*batches: np.ndarray) -> Collector:
    collector = Collector()
    for batch in batches:
        collector.collect(torch.from_numpy(batch))
    return collector


def coarser(collector: Collector, bins: int) -> tuple[np.ndarray, float]:
    """A collector's counts in at most `bins` bins, that the reference's loop is through with soon; and their width."""
    group = BINS // bins
    counts = collector.counts.numpy().reshape(-1, group).sum(1)
    return counts[: int(counts.nonzero()[0].max()) + 1], collector.width * group


def toolkit_entropy(counts: np.ndarray, width: float) -> float:
    from pytorch_quantization.calib.histogram import _compute_amax_entropy

    edges = np.arange(len(counts) + 1) * width
    return float(_compute_amax_entropy(counts.copy(), edges, num_bits=8, unsigned=False, stride=1, start_bin=128))


def toolkit_mse(counts: np.ndarray, width: float) -> float:
    """The formula of the toolkit's `_compute_amax_mse`, which itself needs a GPU: it calls .cuda()."""
    from pytorch_quantization.tensor_quant import fake_tensor_quant

    counted = torch.from_numpy(counts).float()
    edges = torch.from_numpy(np.arange(len(counts) + 1) * width).float()
    centers = (edges[1:] + edges[:-1]) / 2
    errors = [
        ((fake_tensor_quant(centers, centers[i], 8, False) - centers) ** 2 * counted).mean()
        for i in range(128, len(centers))
    ]
    return float(centers[128 + int(np.argmin(errors))])


@pytest.fixture(scope="module")
def activations(registry, tmp_path_factory) -> Statistics:
    """What resnet20's quantizers saw of 64 digits."""
    plan = make_plan(Options(model="resnet20", target="onnxruntime"), registry, tmp_path_factory.mktemp("cache"))
    images = read_calibration(plan, Silent())
    network = load_network(plan.spec, plan.weights, few(images)).network
    quantized = insert_quantizers(network, plan.spec, plan.recipe)
    calibrate_weights(quantized)
    return collect(quantized, batches_of(images.images))


DISTRIBUTIONS = pytest.mark.parametrize("name", ["Gaussian", "Laplace", "ReLU'd", "bimodal", "heavy-tailed"])


@DISTRIBUTIONS
def test_entropy_finds_the_toolkits_amax_to_within_a_bin(name):
    counts, width = coarser(collected(drawn(name)), 1024)
    assert abs(entropy_amax(counts, width) - toolkit_entropy(counts, width)) <= width


@DISTRIBUTIONS
def test_mse_finds_the_amax_of_the_toolkits_formula_to_within_a_bin(name):
    counts, width = coarser(collected(drawn(name)), 2048)
    assert abs(mse_amax(counts, width) - toolkit_mse(counts, width)) <= width * (1 + 1e-6)


def test_entropy_finds_the_toolkits_amax_of_every_activation_of_resnet20(activations):
    for path, collector in activations.collectors.items():
        counts, width = coarser(collector, 512)
        assert abs(entropy_amax(counts, width) - toolkit_entropy(counts, width)) <= width, path


def test_mse_finds_the_toolkits_amax_of_every_activation_of_resnet20(activations):
    for path, collector in activations.collectors.items():
        counts, width = coarser(collector, 1024)
        assert abs(mse_amax(counts, width) - toolkit_mse(counts, width)) <= width * (1 + 1e-6), path


@SEARCH
@given(HISTOGRAMS)
def test_entropy_finds_the_toolkits_amax_of_any_histogram(counts):
    assert entropy_amax(counts, 1.0) == pytest.approx(toolkit_entropy(counts, 1.0), abs=1)


@PROPERTY
@given(HISTOGRAMS)
def test_no_candidate_quantizes_any_histogram_with_a_smaller_error_than_mses(counts):
    centres = np.arange(len(counts)) + 0.5

    def error(amax: float) -> float:
        step = amax / 127
        return float((counts * (step * np.minimum(np.round(centres / step), 127) - centres) ** 2).sum())

    assert error(mse_amax(counts, 1.0)) <= min(error(amax) for amax in centres[128:]) * (1 + 1e-9)


def test_the_solvers_leave_the_histogram_as_it_was():
    collector = collected(drawn("ReLU'd"))
    before = collector.counts.clone()
    for name in ("max", "percentile", "mse", "entropy"):
        solver(name)(collector)
    assert torch.equal(collector.counts, before)


@pytest.mark.parametrize("name", ["mse", "entropy"])
def test_outliers_are_clamped_and_the_amax_is_never_above_the_maximum(name):
    values = np.append(drawn("Gaussian"), np.float32(40))
    assert 2 < solver(name)(collected(values)) < 25
    assert solver(name)(collected(np.float32([3.0]))) == 3.0


@pytest.mark.parametrize("name", ["mse", "entropy"])
def test_a_tensor_far_from_zero_is_not_clamped_below_all_its_values(name):
    values = 10 + drawn("Gaussian") / 10
    assert values.min() < solver(name)(collected(values)) <= values.max()


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

    x = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    reference = HistogramCalibrator(num_bits=8, axis=None, unsigned=False, num_bins=4096)
    reference.collect(x)
    theirs = float(reference.compute_amax("percentile", percentile=percentile))
    collector = collected(x.numpy())
    assert abs(percentile_amax(collector, percentile) - theirs) <= collector.width + float(x.abs().max()) / 4096


def test_max_is_the_maximum():
    assert solver("max")(collected(np.array([1.0, -3.5, 2.0], np.float32))) == 3.5


def test_all_zeros_give_zero():
    collector = collected(np.zeros(10, np.float32))
    assert {solver(name)(collector) for name in ("max", "percentile", "mse", "entropy")} == {0.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["max", "percentile:99", "mse", "entropy"])
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
    "text",
    ["percentile:", "percentile:0", "percentile:101", "percentile:x", "percentile:nan", "max:3", "mse:3", "entropy:1"],
)
def test_a_bad_argument_is_a_usage_error(text):
    if text == "percentile:":
        assert solver(text)(collected(np.ones(3, np.float32))) == 1
        return
    with pytest.raises(UsageError) as raised:
        solver(text)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("name", ["auto", "trained"])
def test_what_names_no_method_solves_nothing(name):
    with pytest.raises(CalibrationError, match=f"{name} solves nothing"):
        solver(name)
