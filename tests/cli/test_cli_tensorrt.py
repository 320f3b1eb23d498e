"""Engines built ahead of time, through the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_builds import SMALL


@pytest.fixture
def stored(planned, planned_home, home, monkeypatch):
    """QZOO_HOME: where resnet20:int8 is stored for TensorRT-RTX. Not to be changed."""
    monkeypatch.setenv("QZOO_HOME", str(planned_home))
    return planned


BUILD = ("build", "resnet20", "--target", "tensorrt-rtx", "--gpu", "sm86,sm89,sm120", "--batch", "1:8:32")


def test_a_build_ends_with_0_and_says_that_it_is_planned(qzoo, stored):
    ended = qzoo(*BUILD)
    assert ended.code == 0
    assert "resnet20 int8 for tensorrt-rtx/sm86+sm89+sm120" in ended.out
    assert "planned: built, but not run here" in ended.out
    assert "built but not run here: " in ended.out


def test_json_has_null_for_what_was_not_measured(qzoo, stored):
    found = qzoo(*BUILD, "--json").json
    assert (found["verified"], found["latency_ms"], found["accuracy"], found["fidelity"]) == (
        "planned",
        None,
        None,
        None,
    )
    assert found["target"] == "tensorrt-rtx/sm86+sm89+sm120"
    assert found["engine"] == str(stored.engine)


def test_gpus_and_target_may_be_written_as_one(qzoo, stored):
    words = ("--target", "tensorrt-rtx/sm89+sm86+sm120", "--batch", "1:8:32", "--json")
    assert qzoo("build", "resnet20", *words).json["id"] == stored.manifest.id


@pytest.mark.parametrize(
    "words", [("run", "IMAGE"), ("bench",), ("eval", "--data", "digits")], ids=lambda words: words[0]
)
def test_running_it_ends_with_4_and_says_what_is_missing(qzoo, stored, digits, words):
    verb, *rest = (str(digits[0]) if word == "IMAGE" else word for word in words)
    ended = qzoo(verb, "resnet20:int8", *rest)
    assert (ended.code, ended.out) == (4, "")
    assert "engine.plan is for tensorrt-rtx/sm86+sm89+sm120 and can't run here: " in ended.err
    assert "Traceback" not in ended.err


def test_a_changed_byte_is_found_before_anything_else(qzoo, stored, home, digits, tmp_path):
    copied = shutil.copytree(stored.path, tmp_path / "copied")
    engine = copied / stored.engine.name
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.chmod(0o644)
    engine.write_bytes(data)
    ended = qzoo("run", copied, digits[0])
    assert ended.code == 6
    assert "engine.plan" in ended.err


def test_layers_are_shown_with_what_is_in_int8(qzoo, stored):
    out = qzoo("info", "resnet20:int8", "--layers").out
    assert "convolutions in INT8: 21 of 21" in out
    assert "matrix products in INT8: 1 of 1" in out
    (line,) = [line for line in out.splitlines() if line.strip().startswith("node_conv2d_20_")]
    assert line.split()[1:4] == ["correlation", "Int8", "Float"]
    assert "node_conv2d_20" in line.split()[4]


def test_layers_in_json_are_the_bundles_own(qzoo, stored):
    plain, full = (qzoo("info", "resnet20:int8", *more, "--json").json for more in ((), ("--layers",)))
    assert plain["layers"] is None
    assert full["layers"] == json.loads((stored.path / "layers.json").read_text())


def test_layers_of_an_engine_without_them_are_refused(qzoo, built):
    ended = qzoo("info", "resnet20:int8", "--target", "onnxruntime", "--layers")
    assert ended.code == 2
    assert "comes without layers.json; onnxruntime tells no layers" in ended.err


def test_layers_of_a_model_are_refused(qzoo):
    ended = qzoo("info", "resnet20", "--layers")
    assert (ended.code, ended.out) == (2, "")
    assert "--layers lists an engine's layers, and resnet20 is a model" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--gpu", "sm86"), 2, "--gpu sm86 needs a --target that builds ahead of time, not auto"),
        (("--target", "tensorrt-rtx/sm86", "--gpu", "sm89"), 2, "--gpu sm89 needs a --target"),
        (("--target", "onnxruntime", "--gpu", "sm86"), 4, "onnxruntime builds only for the machine it runs on"),
        (("--target", "tensorrt-rtx", "--gpu", "sm90"), 2, "unknown GPU architecture 'sm90'"),
        (("--target", "tensorrt-rtx", "--gpu", "sm86", "--precision", "bf16"), 4, "use --precision fp16"),
        (("--target", "tensorrt-rtx", "--gpu", "sm86", "--version-compatible"), 4, "needs the lean runtime"),
        (("--target", "tensorrt-rtx", "--gpu", "sm86", "--hardware-compatible"), 4, "name every GPU"),
        (("--target", "onnxruntime", "--workspace", "100"), 4, "onnxruntime: it has no builder settings"),
        (("--builder-optimization-level", "6"), 2, "6 is not in the range 0<=x<=5"),
        (("--batch", "1:8"), 2, "--batch 1:8: give three batch sizes, MIN:OPT:MAX"),
        (("--batch", "1:8:x"), 2, "--batch 1:8:x: give three batch sizes"),
        (("--batch", "8:1:32"), 2, "batch profile needs 1 <= min <= opt <= max, got 8:1:32"),
        (("--batch", "0:1:32"), 2, "batch profile needs 1 <= min"),
        (("--batch", "1:8:32", "--batch-size", "4"), 2, "--batch 1:8:32 contradicts --batch-size 4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_words_that_do_not_fit_are_refused(qzoo, registry, words, code, says):
    if "tensorrt-rtx" in words and not registry.backend("tensorrt-rtx").probe().builds:
        pytest.skip(f"tensorrt-rtx: {registry.backend('tensorrt-rtx').probe().reason}")
    ended = qzoo("build", "resnet20", *words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err


def test_the_batch_profile_holds_for_cpu_runtimes_too(qzoo):
    words = ("--target", "onnxruntime", "--batch", "1:4:16", "--dry-run", "--json")
    assert qzoo("build", "resnet20", *words).json["recipe"]["batch"] == {"min": 1, "opt": 4, "max": 16}


def test_doctor_says_what_each_flavour_can_do_here(qzoo, registry):
    states = {state["name"]: state for state in qzoo("doctor", "--json").json["targets"]}
    for name in ("tensorrt", "tensorrt-rtx"):
        probe = registry.backend(name).probe()
        assert (states[name]["works"], states[name]["builds"], states[name]["reason"]) == (
            False,
            probe.builds,
            probe.reason,
        )
        assert states[name]["precisions"] == (["fp32", "fp16", "int8", "int8+fp16"] if probe.builds else [])


def pictures(folder: Path) -> Path:
    """Twenty pictures of nothing: enough to calibrate a network with random weights."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(20):
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def test_all_53_convolutions_of_resnet50_are_planned_in_int8(qzoo, registry, tmp_path):
    if not registry.backend("tensorrt-rtx").probe().builds:
        pytest.skip(f"tensorrt-rtx: {registry.backend('tensorrt-rtx').probe().reason}")
    made = ("--weights", "random", "--data", pictures(tmp_path / "pictures"), "--calib-samples", "8")
    built = qzoo("build", "resnet50", *made, "--target", "tensorrt-rtx", "--gpu", "sm89", "--batch", "1:8:32", "-q")
    assert built.code == 0
    found = qzoo("info", "resnet50:int8", "--layers", "--json").json
    convolutions = [one for one in found["layers"]["operators"] if one["operator"] == "Conv"]
    assert [one["dtype"] for one in convolutions] == ["Int8"] * 53
    summed = [layer for layer in found["layers"]["layers"] if any("node_add" in node for node in layer["nodes"])]
    assert len(summed) == 16
    assert {tensor["dtype"] for layer in summed for tensor in layer["outputs"]} == {"Int8"}
    assert found["record"]["layers_sha256"] == found["manifest"]["files"]["layers.json"]["sha256"]
    assert found["measurement"]["verified"] == "planned"


@pytest.mark.parametrize(
    ("words", "precision", "tag"),
    [(("--fp16",), "fp16", "fp16"), (("--int8", "--fp16"), "int8+fp16", "int8-fp16")],
)
def test_precisions_of_16_bits_are_built_and_stored_under_their_tag(qzoo, registry, words, precision, tag):
    if not registry.backend("tensorrt-rtx").probe().builds:
        pytest.skip(f"tensorrt-rtx: {registry.backend('tensorrt-rtx').probe().reason}")
    small = [word for word in SMALL if word not in ("--target", "onnxruntime")]
    target = ("--target", "tensorrt-rtx", "--gpu", "sm89", "--batch", "1:2:4")
    built = qzoo(*small, *words, *target, "--json", "-q")
    assert built.code == 0
    assert (built.json["precision"], built.json["verified"]) == (precision, "planned")
    found = qzoo("info", f"small:{tag}", "--layers", "--json").json
    assert found["record"]["precision"] == precision
    types = {one["dtype"] for one in found["layers"]["operators"] if one["operator"] == "Conv"}
    assert types == {"Int8" if "int8" in precision else "Half"}


def test_builder_settings_are_in_the_record_and_decide_the_id(qzoo, registry):
    if not registry.backend("tensorrt-rtx").probe().builds:
        pytest.skip(f"tensorrt-rtx: {registry.backend('tensorrt-rtx').probe().reason}")
    small = [word for word in SMALL if word not in ("--target", "onnxruntime")]
    target = ("--target", "tensorrt-rtx", "--gpu", "sm89", "--json", "-q")
    plain, told = (
        qzoo(*small, *target, *more, "--dry-run").json
        for more in ((), ("--workspace", "64", "--builder-optimization-level", "3"))
    )
    assert plain["id"] != told["id"]
    assert told["recipe"]["builder"]["workspace_mib"] == 64
    qzoo(*small, *target, "--workspace", "64")
    config = qzoo("info", "small:int8", "--json").json["record"]["config"]
    assert config["workspace_mib"] == "64"
