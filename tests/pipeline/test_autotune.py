"""--autotune: what is tried, what is kept, and that a timing cache decides the same again."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from qzoo.errors import TargetUnsupported, UsageError
from qzoo.pipeline import Options
from qzoo.pipeline.autotune import autotune
from qzoo.pipeline.timing_cache import TimingCache
from qzoo.records import encode
from qzoo.registry import Registry
from qzoo.store import Store

TINY = Options(model="tiny", weights="random", target="onnxruntime", calib_samples=16, autotune="quick")


@pytest.fixture(scope="module")
def tiny(tiny_dir):
    before = [*sys.path]
    yield Registry.load((tiny_dir,), env={})
    sys.path[:] = before


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def timings(tmp_path_factory):
    return tmp_path_factory.mktemp("timings") / "cache.json"


@pytest.fixture(scope="module")
def first(tiny, store, timings):
    """Tuned once, its timings kept in `timings`."""
    return autotune(replace(TINY, timing_cache=timings), tiny, store)


@pytest.fixture
def retuned(first, tiny, store, timings, tmp_path):
    """Tune again as if these candidates, by precision and variant, had taken so long, and all others 100 ms."""
    kept = json.loads(timings.read_text())["median_ms"]
    keys = {(one.precision, one.variant): one.key for one in first.bundle.measurement.candidates}
    assert sorted(keys.values()) == list(kept)

    def tune(latencies, **options):
        path = tmp_path / "edited.json"
        medians = dict.fromkeys(kept, 100.0) | {keys[name]: latency for name, latency in latencies.items()}
        path.write_bytes(encode(TimingCache(median_ms=medians)))
        before = path.read_bytes()
        tuned = autotune(replace(TINY, timing_cache=path, **options), tiny, store)
        assert path.read_bytes() == before, "something was timed, though all was in the cache"
        return tuned

    return tune


PLAIN = ("int8", "as the recipe says")


def test_every_candidate_is_recorded_with_its_latency_and_one_is_kept(first):
    candidates = first.bundle.measurement.candidates
    names = {(one.precision, one.variant) for one in candidates}
    assert {PLAIN, ("int8", "first in float"), ("int8", "one summand quantized"), ("fp32", "fp32")} <= names
    assert all(one.latency_ms > 0 and one.fidelity.samples == 64 for one in candidates)
    assert [one.chosen for one in candidates].count(True) == 1


def test_the_fastest_is_kept_and_the_bundle_is_that_of_its_recipe(retuned):
    tuned = retuned({("int8", "first in float"): 50.0})
    assert tuned.bundle.manifest.inputs.recipe.float_modules == ("stem",)
    (kept,) = [one for one in tuned.bundle.measurement.candidates if one.chosen]
    assert (kept.variant, kept.latency_ms) == ("first in float", 50.0)


def test_the_same_cache_decides_the_same_again_and_serves_the_same_bundle(retuned):
    once = retuned({("int8", "one summand quantized"): 40.0})
    again = retuned({("int8", "one summand quantized"): 40.0})
    assert again.cached
    assert again.bundle.id == once.bundle.id


def test_a_float_engine_that_is_faster_is_kept_and_said(retuned):
    tuned = retuned({("fp32", "fp32"): 98.0})
    assert tuned.plan.recipe.precision == "fp32"
    assert any("autotune kept fp32: no INT8 engine is as fast here" in note for note in tuned.bundle.measurement.notes)


def test_of_engines_as_fast_within_one_percent_the_most_exact_int8_one_is_kept(retuned, first):
    candidates = {(one.precision, one.variant): one.fidelity.sqnr_db for one in first.bundle.measurement.candidates}
    tuned = retuned({("fp32", "fp32"): 99.5})
    best = max((name for name in candidates if name[0] == "int8"), key=candidates.__getitem__)
    (kept,) = [one for one in tuned.bundle.measurement.candidates if one.chosen]
    assert (kept.precision, kept.variant) == best


def test_full_tries_combinations_too(tiny, store, tmp_path):
    tuned = autotune(replace(TINY, autotune="full"), tiny, store)
    variants = {one.variant for one in tuned.bundle.measurement.candidates}
    assert "first and last in float, one summand quantized" in variants


def test_what_the_recipe_computes_in_float_is_tried_in_int8(tiny, store):
    tuned = autotune(replace(TINY, model="stem-in-float"), tiny, store)
    variants = [one.variant for one in tuned.bundle.measurement.candidates]
    assert variants.count("quantized where the recipe says float") == 1
    assert "first in float" not in variants, "the same engine as the recipe's"


def test_float_parts_are_tried_in_fp32_where_the_runtime_takes_bf16(tiny, store):
    tuned = autotune(replace(TINY, model="stem-in-float", target="openvino"), tiny, store)
    takes_bf16 = tiny.backend("openvino").config("int8")["INFERENCE_PRECISION_HINT"] == "bf16"
    found = {one.variant for one in tuned.bundle.measurement.candidates if one.precision == "int8"}
    assert ("float parts in fp32" in found) == takes_bf16


def test_onnxruntime_computes_float_parts_in_fp32_anyway(first):
    assert not any("float parts" in one.variant for one in first.bundle.measurement.candidates)


def test_int8_engines_that_lose_too_many_images_are_not_kept_however_fast(registry, tmp_path):
    options = Options(
        model="resnet20", target="onnxruntime", weight_bits=2, calibrator="max", calib_samples=16, autotune="quick"
    )
    tuned = autotune(options, registry, Store(tmp_path))
    right = {one.precision: one.accuracy.correct for one in tuned.bundle.measurement.candidates}
    assert right["fp32"] - right["int8"] > 1
    assert tuned.bundle.record.precision == "fp32"


def test_target_auto_tries_every_runtime_that_runs_here(tiny, store):
    tuned = autotune(replace(TINY, target="auto"), tiny, store)
    runtimes = {one.target.partition("/")[0] for one in tuned.bundle.measurement.candidates}
    assert runtimes == {backend.name for backend in tiny.preferred() if backend.probe().works}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_starts_from_int8(tiny, store, precision):
    with pytest.raises(UsageError, match=f"it starts from --int8, not {precision}"):
        autotune(replace(TINY, precision=precision), tiny, store)


def test_what_does_not_run_here_can_not_be_measured(tiny, store):
    backend = tiny.backend("tensorrt-rtx")
    if not backend.probe().builds:
        pytest.skip(f"tensorrt-rtx: {backend.probe().reason}")
    with pytest.raises(TargetUnsupported, match="autotune measures engines, and tensorrt-rtx/sm89 doesn't run here"):
        autotune(replace(TINY, target="tensorrt-rtx/sm89"), tiny, store)


def test_a_file_that_is_no_timing_cache_is_refused_and_left_alone(tiny, store, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt is no timing cache of --autotune; name another file"):
        autotune(replace(TINY, timing_cache=path), tiny, store)
    assert path.read_text() == "mine"
