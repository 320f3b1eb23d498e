"""`--calib auto` and `--calib all`: which calibrator is chosen, on which images, and what is kept of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from qzoo.errors import DataUnavailable, UsageError
from qzoo.pipeline import Options, build_all, export_graph, make_plan, rebuild, stored
from qzoo.pipeline.calibrators import calibrate_plan
from qzoo.pipeline.forward import batches_of, few, steps
from qzoo.pipeline.images import read_calibration, read_compared
from qzoo.pipeline.network import load_network
from qzoo.pipeline.progress import Silent
from qzoo.quant.calibrate import calibrate
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import quantizers
from qzoo.records import decode, encode
from qzoo.spec import COMPARED_CALIBRATORS
from qzoo.store import Store

AUTO = Options(model="resnet20", target="onnxruntime", calibrator="auto")
ALL = Options(model="resnet20", target="onnxruntime", calibrator="all")
PLAIN = Options(model="resnet20", target="onnxruntime")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def plan(registry, cache):
    return make_plan(AUTO, registry, cache)


@pytest.fixture(scope="module")
def float_network(plan):
    return load_network(plan.spec, plan.weights, torch.zeros(1, *plan.spec.input.shape)).network


@pytest.fixture(scope="module")
def calibrated(plan, float_network):
    """The network and what was found, of --calib auto; and how many batches went through it."""
    network, batches = insert_quantizers(float_network, plan.spec, plan.recipe), []
    network.register_forward_hook(lambda *_: batches.append(1))
    found = calibrate_plan(network, float_network, plan, read_calibration(plan, Silent()), Silent())
    return network, found, len(batches)


def outputs(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(images)).double().numpy()


def test_each_calibrators_figures_are_those_of_the_network_that_it_alone_calibrates(plan, float_network, calibrated):
    images = read_compared(plan, Silent())
    want = outputs(float_network, images.images)
    centred = want - want.mean(0)
    trials = calibrated[1].trials
    assert [trial.calibrator for trial in trials] == [*COMPARED_CALIBRATORS]
    for trial in trials:
        network = insert_quantizers(float_network, plan.spec, plan.recipe)
        calibrate(network, batches_of(read_calibration(plan, Silent()).images), trial.calibrator, "")
        got = outputs(network, images.images)
        noise = centred - (got - got.mean(0))
        assert trial.fidelity.sqnr_db == pytest.approx(10 * np.log10((centred**2).sum() / (noise**2).sum()), abs=0.02)
        assert trial.fidelity.top1_agreement == (want.argmax(1) == got.argmax(1)).mean()
        assert (trial.accuracy.correct, trial.accuracy.total) == ((got.argmax(1) == images.labels).sum(), 64)


def test_auto_takes_the_best_by_sqnr_and_calibrates_with_it(plan, float_network, calibrated):
    network, found, _ = calibrated
    best = max(trial.fidelity.sqnr_db for trial in found.trials)
    chosen = next(trial for trial in found.trials if trial.fidelity.sqnr_db == best)
    assert [trial.calibrator for trial in found.trials if trial.chosen] == [chosen.calibrator]
    assert found.table.calibrator == chosen.calibrator
    alone = insert_quantizers(float_network, plan.spec, plan.recipe)
    digest = plan.inputs.sample_list_sha256
    images = read_calibration(plan, Silent()).images
    assert calibrate(alone, batches_of(images), chosen.calibrator, digest) == found.table
    assert {path: q.amax.tolist() for path, q in quantizers(network).items()} == {
        path: q.amax.tolist() for path, q in quantizers(alone).items()
    }


def test_the_calibration_images_pass_once_however_many_calibrators_there_are(plan, calibrated):
    (once,) = {steps(images.images) for images in (read_calibration(plan, Silent()), read_compared(plan, Silent()))}
    assert calibrated[2] == once + len(COMPARED_CALIBRATORS) * once


def test_of_equally_good_calibrators_the_first_is_taken(registry, cache):
    # of so few values every percentile is the maximum
    options = Options(
        model="resnet20", target="onnxruntime", calibrator="auto", calib_samples=8, weights="random", data="digits"
    )
    plan = make_plan(options, registry, cache)
    images = read_calibration(plan, Silent())
    network = load_network(plan.spec, plan.weights, few(images)).network
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.zeros_(module.weight)  # a network that is exact whatever the ranges
    found = calibrate_plan(insert_quantizers(network, plan.spec, plan.recipe), network, plan, images, Silent())
    assert len({trial.fidelity.sqnr_db for trial in found.trials}) == 1
    assert found.table.calibrator == "max"
    assert {trial.accuracy for trial in found.trials} == {None}  # random weights


def test_calibrators_are_compared_on_calibration_images_that_no_histogram_saw(registry, cache):
    for options in (AUTO, ALL):
        found = make_plan(options, registry, cache)
        compared, seen = ({s.sha256 for s in samples} for samples in (found.compared, found.calibration))
        assert len(found.compared) == 64
        assert not compared & (seen | {s.sha256 for s in found.held_out})
    assert make_plan(PLAIN, registry, cache).compared == ()


def test_the_calibration_images_are_those_of_a_build_that_compares_nothing(registry, cache):
    plain = make_plan(PLAIN, registry, cache)
    for options in (AUTO, ALL):
        assert make_plan(options, registry, cache).calibration == plain.calibration


def test_all_is_the_recipes_own_build_and_auto_is_one_of_its_own(registry, cache):
    ids = {
        name: make_plan(Options(model="resnet20", target="onnxruntime", calibrator=name), registry, cache).inputs
        for name in (None, "all", "auto", *COMPARED_CALIBRATORS)
    }
    assert ids["all"] == ids[None] == ids["percentile:99.99"]
    assert len({inputs.bundle_id for inputs in ids.values()}) == len(COMPARED_CALIBRATORS) + 1
    assert ids["auto"].recipe.calibrator == "auto"


def test_too_few_images_to_compare_on_are_refused(registry, cache):
    options = Options(model="resnet20", target="onnxruntime", calibrator="auto", calib_samples=1430)
    with pytest.raises(DataUnavailable, match=r"7 calibration images beside the 1430.*a smaller --calib-samples"):
        make_plan(options, registry, cache)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"calibrator": "auto", "precision": "fp32"}, "--calib auto compares quantized networks; fp32 has none"),
        ({"calibrator": "all", "precision": "fp32"}, "--calib all compares quantized networks; fp32 has none"),
        ({"calibrator": "all", "qat_epochs": 1}, "--calib auto to begin from the best"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused(registry, cache, options, says):
    with pytest.raises(UsageError, match=says):
        make_plan(Options(model="resnet20", target="onnxruntime", **options), registry, cache)


def test_a_graph_is_exported_with_auto_but_not_with_all(registry, cache):
    with pytest.raises(UsageError, match="--calib all reports on a build"):
        export_graph(make_plan(ALL, registry, cache), "portable")


def test_all_adds_its_figures_to_the_same_bundle_and_is_served_from_then_on(bundles, built_home, registry, tmp_path):
    plain = bundles["onnxruntime"]
    shutil.copytree(built_home, tmp_path / "home")
    store = Store(tmp_path / "home")
    plan = make_plan(ALL, registry, store.home / "cache")
    assert stored(plan, store) is None
    assert stored(make_plan(PLAIN, registry, store.home / "cache"), store) is not None
    (bundle,) = build_all([plan], store)
    assert bundle.manifest == plain.manifest
    for name in plain.manifest.files:
        assert (bundle.path / name).read_bytes() == (plain.path / name).read_bytes(), name
    trials = bundle.measurement.calibrators
    assert [trial.calibrator for trial in trials if trial.chosen] == ["percentile:99.99"]
    assert len(trials) == len(COMPARED_CALIBRATORS)
    assert stored(plan, store).path == bundle.path
    assert rebuild(bundle, registry, store).measurement.calibrators == trials


def test_a_trial_comes_back_from_json(calibrated):
    trials = calibrated[1].trials
    assert decode(encode(trials), tuple[type(trials[0]), ...]) == trials
    assert json.loads(encode(trials))[0]["calibrator"] == "max"
