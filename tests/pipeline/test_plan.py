"""What a build decides before it loads anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qzoo.errors import DataUnavailable, TargetUnavailable, TargetUnsupported, UnknownName, UsageError
from qzoo.pipeline import Options, make_plan
from qzoo.pipeline.plan import choose_backend
from qzoo.records import Probe
from qzoo.registry import Registry


def plan_id(registry: Registry, cache: Path, **options: object) -> str:
    return make_plan(Options(model="resnet20", target="onnxruntime", **options), registry, cache).inputs.bundle_id


def test_the_same_options_give_the_same_id(registry, tmp_path):
    assert plan_id(registry, tmp_path) == plan_id(registry, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"calib_samples": 32},
        {"calibrator": "max"},
        {"placement": "auto"},
        {"precision": "fp32"},
        {"weights": "random"},
        {"max_drop": 2.0},
        {"batch_size": 4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_bundle_changes_the_id(registry, tmp_path, change):
    assert plan_id(registry, tmp_path, **change) != plan_id(registry, tmp_path)


def test_a_plan_loads_no_torch():
    code = (
        "import sys; from pathlib import Path; from qzoo.pipeline import *; from qzoo.registry import Registry\n"
        "make_plan(Options(model='resnet20'), Registry.load(env={}), Path('unused'))\n"
        "print([name for name in ('torch', 'onnxruntime', 'openvino', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_auto_takes_openvino_before_onnxruntime_and_says_so(registry):
    backend, reason = choose_backend("auto", registry)
    assert backend.name == "openvino"
    assert "openvino works here" in reason


def test_auto_passes_over_what_does_not_work_and_says_why(registry, monkeypatch):
    openvino = registry.backend("openvino")
    monkeypatch.setattr(
        openvino, "probe", lambda: Probe(works=False, reason="openvino is not installed"), raising=False
    )
    backend, reason = choose_backend("auto", registry)
    assert backend.name == "onnxruntime"
    assert "openvino is not installed" in reason


def test_a_target_that_does_not_work_here_is_refused_with_its_reason(registry, monkeypatch):
    openvino = registry.backend("openvino")
    monkeypatch.setattr(openvino, "probe", lambda: Probe(works=False, reason="pip install it"), raising=False)
    with pytest.raises(TargetUnavailable, match=r"openvino.*pip install it"):
        choose_backend("openvino", registry)


def test_an_unknown_target_names_the_nearest(registry):
    with pytest.raises(UnknownName, match="did you mean openvino"):
        choose_backend("openvno", registry)


def test_fp16_without_fp16_arithmetic_is_refused(registry, tmp_path):
    with pytest.raises(TargetUnsupported, match="fp16") as raised:
        make_plan(Options(model="resnet20", precision="fp16", target="onnxruntime"), registry, tmp_path)
    assert raised.value.exit_code == 4


@pytest.mark.parametrize("count", [0, -1, 7])
def test_too_few_calibration_samples_are_refused(registry, tmp_path, count):
    with pytest.raises(UsageError, match=f"--calib-samples {count}.*at least 8"):
        make_plan(Options(model="resnet20", calib_samples=count), registry, tmp_path)


def test_a_negative_max_drop_is_refused(registry, tmp_path):
    with pytest.raises(UsageError, match="--max-drop -1"):
        make_plan(Options(model="resnet20", max_drop=-1.0), registry, tmp_path)


def test_a_dataset_of_other_classes_is_refused_and_both_counts_are_named(registry, tmp_path):
    for name in ("cat", "dog"):
        for index in range(30):
            place = tmp_path / "pets" / name
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(index + 100 * len(name)).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels + (name == "cat")).save(place / f"{index}.png")
    with pytest.raises(DataUnavailable, match=r"2 classes.*weights have 10"):
        make_plan(Options(model="resnet20", data=str(tmp_path / "pets")), registry, tmp_path)


def test_a_data_path_that_is_no_directory_is_refused(registry, tmp_path):
    with pytest.raises(DataUnavailable, match="neither a directory"):
        make_plan(Options(model="resnet20", data=str(tmp_path / "nothing")), registry, tmp_path)


def test_labels_of_another_count_are_refused(registry, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    with pytest.raises(UsageError, match="names 2 classes, the weights have 10"):
        make_plan(Options(model="resnet20", labels=labels), registry, tmp_path)


def test_held_out_images_never_calibrate(registry, tmp_path):
    plan = make_plan(Options(model="resnet20", calib_samples=1437), registry, tmp_path)
    assert len(plan.held_out) == 360
    assert not {s.sha256 for s in plan.calibration} & {s.sha256 for s in plan.held_out}
