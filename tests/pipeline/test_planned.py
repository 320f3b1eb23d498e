"""Engines that are built for hardware that isn't here: everything is made and checked but what only running shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from qzoo.data.digits import Digits
from qzoo.data.preprocess import apply
from qzoo.data.sampler import labels_of
from qzoo.errors import AccuracyGateError, TargetUnavailable
from qzoo.pipeline import Options, build_all, make_plan, rebuild
from qzoo.records import digest_of, file_digest
from qzoo.spec import BatchProfile
from qzoo.store import Store


def test_nothing_that_only_running_shows_is_claimed(planned):
    measured = planned.measurement
    assert measured.verified == "planned"
    assert (measured.accuracy, measured.fidelity, measured.engine_fidelity, measured.latency) == (None, None, None, {})


def test_what_was_checked_without_running_it_is_there(planned):
    measured = planned.measurement
    assert measured.export_fidelity.sqnr_db > 20
    assert measured.lowering_cost_db is not None
    assert abs(measured.lowering_cost_db) < 3
    assert measured.size_bytes["engine"] == planned.engine.stat().st_size
    assert measured.size_bytes["float"] > 0


def test_the_note_says_why_and_how_many_the_lowered_graph_has_right(planned):
    images = Digits()
    samples = images.samples("held-out")
    batch = np.stack([apply(planned.record.preprocess, images.image(sample)) for sample in samples])
    (logits,) = onnxruntime.InferenceSession(planned.path / "lowered.onnx").run(None, {"input": batch})
    right = int((logits.argmax(1) == np.array(labels_of(samples))).sum())
    (note,) = [note for note in planned.measurement.notes if note.startswith("built but not run here: ")]
    told = re.search(r"its lowered graph was, in onnxruntime \((\d+) of 360 right\)$", note)
    assert abs(int(told[1]) - right) <= 1  # an optimized session adds in another order


def test_the_bundle_is_whole_and_has_the_layers(planned):
    planned.verify()
    assert {*planned.manifest.files} == {
        "portable.onnx",
        "lowered.onnx",
        "calibration.json",
        "engine.plan",
        "engine.plan.json",
        "layers.json",
    }
    assert planned.layers.coverage("Conv") == (21, 21)
    assert planned.record.sha256 == file_digest(planned.engine)
    assert planned.record.graph_sha256 == digest_of((planned.path / "lowered.onnx").read_bytes())


def test_the_target_names_all_gpus_and_the_recipe_the_batches(planned):
    inputs = planned.manifest.inputs
    assert str(inputs.target) == "tensorrt-rtx/sm86+sm89+sm120"
    assert inputs.versions["tensorrt_rtx_cu13"] == inputs.target.version
    assert inputs.recipe.batch == BatchProfile(min=1, opt=8, max=32)


def test_the_same_again_is_served_from_the_store(planned, planned_home, registry):
    options = Options(model="resnet20", target="tensorrt-rtx/sm120+sm86+sm89", batch=BatchProfile(min=1, opt=8, max=32))
    store = Store(planned_home)
    plan = make_plan(options, registry, store.home / "cache")
    assert build_all([plan], store)[0].path == planned.path


@pytest.mark.parametrize("change", [{"target": "tensorrt-rtx/sm86"}, {"batch": BatchProfile(min=1, opt=4, max=32)}])
def test_other_gpus_or_batches_are_another_bundle(planned, registry, tmp_path, change):
    options = Options(model="resnet20", target="tensorrt-rtx/sm86+sm89+sm120", batch=BatchProfile(min=1, opt=8, max=32))
    other = make_plan(replace(options, **change), registry, tmp_path)
    assert other.inputs.bundle_id != planned.manifest.id


def test_rebuilding_it_needs_the_gpu(planned, registry, tmp_path):
    with pytest.raises(TargetUnavailable, match="tensorrt-rtx"):
        rebuild(planned, registry, Store(tmp_path))


def few_digits(folder: Path) -> Path:
    """An image folder of scikit-learn's digits, sixteen of each."""
    bunch = load_digits()
    for label in range(10):
        place = folder / str(label)
        place.mkdir(parents=True)
        for index in np.flatnonzero(bunch.target == label)[:16]:
            Image.fromarray(np.rint(bunch.images[index] * 255 / 16).astype(np.uint8)).save(place / f"{index}.png")
    return folder


def test_an_engine_whose_lowered_graph_loses_accuracy_is_refused_though_it_did_not_run(planned, registry, tmp_path):
    options = Options(
        model="resnet20",
        target="tensorrt-rtx/sm89",
        data=str(few_digits(tmp_path / "few")),
        weight_bits=2,
        max_drop=0.0,
        batch=BatchProfile(max=8),
    )
    store = Store(tmp_path / "home")
    with pytest.raises(AccuracyGateError, match=r"resnet20 drops .* points"):
        build_all([make_plan(options, registry, store.home / "cache")], store)
    assert store.list() == []
