"""qzoo run, on real digits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from qzoo.store import Bundle, Store

RUNTIMES = ("onnxruntime", "openvino")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_right_digit_comes_first_of_five(qzoo, built, digits, runtime):
    ended = qzoo("run", "resnet20:int8", digits[7], "--target", runtime)
    path, *guesses = ended.out.splitlines()
    assert (ended.code, ended.err, path) == (0, "", str(digits[7]))
    assert len(guesses) == 5
    chances = [float(guess.split()[0].rstrip("%")) for guess in guesses]
    assert chances == sorted(chances, reverse=True)
    assert guesses[0].split()[1] == "7"


def test_every_image_has_its_own_result_in_the_order_given(qzoo, built, digits):
    found = qzoo("run", "resnet20:int8", *reversed(digits), "--top", "1", "--json").json
    assert [one["image"] for one in found["results"]] == [str(path) for path in reversed(digits)]
    assert [[guess["label"] for guess in one["classes"]] for one in found["results"]] == [
        [str(d)] for d in range(9, -1, -1)
    ]


def test_probabilities_are_the_softmax_of_what_the_graph_gives_for_the_pixels(qzoo, built, bundles, digits):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(bundles["onnxruntime"].path / "lowered.onnx", options)
    pre = bundles["onnxruntime"].record.preprocess
    pixels = Image.open(digits[4]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    array = ((np.asarray(pixels, np.float32) / 255 - pre.mean) / pre.std).transpose(2, 0, 1)[None].astype(np.float32)
    logits = session.run(None, {"input": array})[0][0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    found = qzoo("run", "resnet20:int8", digits[4], "--target", "onnxruntime", "--top", "10", "--json").json
    classes = found["results"][0]["classes"]
    assert sorted(guess["index"] for guess in classes) == list(range(10))
    for guess in classes:
        assert guess["probability"] == pytest.approx(expected[guess["index"]], abs=0.01)


def test_top_beyond_the_classes_shows_all_of_them(qzoo, built, digits):
    assert len(qzoo("run", "resnet20:int8", digits[0], "--top", "99").out.splitlines()) == 1 + 10


def test_a_large_colour_photograph_is_resized_and_run(qzoo, built, tmp_path):
    pixels = np.rint(load_digits().images[6] * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels).resize((640, 640), Image.Resampling.BILINEAR).convert("RGBA").save(tmp_path / "big.png")
    found = qzoo("run", "resnet20:int8", tmp_path / "big.png", "--json").json
    assert found["results"][0]["classes"][0]["label"] == "6"


def test_directory_engine_file_and_reference_are_the_same_engine(qzoo, built, bundles, digits):
    bundle = bundles["openvino"]
    outs = {qzoo("run", name, digits[2]).out for name in (bundle.path, bundle.engine, "resnet20:int8", "resnet20")}
    assert len(outs) == 1


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n half of one"], ids=["empty", "text", "cut"])
def test_an_image_that_cannot_be_read_ends_with_3_and_is_named(qzoo, built, tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    ended = qzoo("run", "resnet20:int8", tmp_path / "broken.png")
    assert (ended.code, ended.out) == (3, "")
    assert str(tmp_path / "broken.png") in ended.err


def test_an_image_that_is_not_there_ends_with_3_and_is_named(qzoo, built, tmp_path):
    ended = qzoo("run", "resnet20:int8", tmp_path / "nothing.png")
    assert ended.code == 3
    assert str(tmp_path / "nothing.png") in ended.err


def test_a_reference_that_is_not_stored_ends_with_7_and_lists_what_is(qzoo, built, bundles, digits):
    ended = qzoo("run", "resnet50:int8", digits[0])
    assert ended.code == 7
    assert "resnet50:int8 is not in the store" in ended.err
    for name in RUNTIMES:
        assert f"resnet20:int8 ({bundles[name].record.target})" in ended.err


def test_an_empty_store_says_how_to_build(qzoo, digits):
    ended = qzoo("run", "resnet20:int8", digits[0])
    assert ended.code == 7
    assert "there is nothing yet: see `qzoo build --help`" in ended.err


@pytest.mark.parametrize(
    ("engine", "code", "says"),
    [
        ("Resnet20", 2, "is no reference; write name[:tag]"),
        ("./nowhere", 2, "there is no such engine file or bundle directory"),
        ("mine.onnx", 2, "there is no such engine file or bundle directory"),
        (".", 2, "is not a bundle: it has no manifest.json"),
    ],
)
def test_what_names_no_engine_is_refused(qzoo, digits, monkeypatch, tmp_path, engine, code, says):
    monkeypatch.chdir(tmp_path)
    ended = qzoo("run", engine, digits[0])
    assert ended.code == code
    assert says in ended.err


def test_an_engine_file_without_its_record_is_refused(qzoo, built, bundles, digits, tmp_path):
    alone = shutil.copy(bundles["onnxruntime"].engine, tmp_path / "alone.onnx")
    ended = qzoo("run", alone, digits[0])
    assert ended.code == 2
    assert f"{alone} has no record beside it; expected {alone}.json" in ended.err


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_with_one_bit_flipped_ends_with_6_and_both_digests_are_named(
    qzoo, bundles, digits, tmp_path, runtime
):
    bundle = Bundle.open(shutil.copytree(bundles[runtime].path, tmp_path / "mine"))
    data = bytearray(bundle.engine.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.engine.unlink()
    bundle.engine.write_bytes(data)
    ended = qzoo("run", bundle.path, digits[0])
    assert (ended.code, ended.out) == (6, "")
    assert f"{bundle.engine} was changed: expected sha256:{bundle.record.sha256}, found sha256:" in ended.err


def test_a_record_that_is_no_record_ends_with_6(qzoo, bundles, digits, tmp_path):
    bundle = Bundle.open(shutil.copytree(bundles["onnxruntime"].path, tmp_path / "mine"))
    sidecar = bundle.path / "engine.onnx.json"
    sidecar.unlink()
    sidecar.write_text("{}")
    ended = qzoo("run", bundle.path, digits[0])
    assert ended.code == 6
    assert f"{sidecar} is not a valid EngineRecord" in ended.err


def other_version(bundle: Bundle, place: Path) -> Path:
    """A copy of a bundle, its engine said to be built with an older runtime."""
    shutil.copytree(bundle.path, place)
    sidecar = place / f"{bundle.manifest.engine}.json"
    record = json.loads(sidecar.read_text())
    record["target"]["version"] = "1.2.3"
    sidecar.unlink()
    sidecar.write_text(json.dumps(record))
    return place


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_of_another_runtime_version_ends_with_4_and_both_versions_are_named(
    qzoo, bundles, digits, tmp_path, runtime
):
    ended = qzoo("run", other_version(bundles[runtime], tmp_path / "older"), digits[0], "--allow-untrusted")
    assert ended.code == 4
    assert f"with {runtime} 1.2.3; this machine is" in ended.err
    assert f"with {runtime} {bundles[runtime].record.target.version}; rebuild it" in ended.err


@pytest.fixture
def vnni(bundles):
    """The OpenVINO bundle, where it is built for a CPU that ONEDNN_MAX_CPU_ISA=AVX2 makes another."""
    target = bundles["openvino"].record.target
    if target.isa in ("avx2", "sse4_1") or not target.isa.startswith(("avx", "amx")):
        pytest.skip(f"{target} is not more than AVX2")
    return bundles["openvino"]


def test_an_engine_for_more_than_this_cpu_can_ends_with_4_and_both_are_named(script, built, vnni, digits):
    ended = script("run", vnni.path, digits[5], ONEDNN_MAX_CPU_ISA="AVX2")
    assert (ended.code, ended.out) == (4, "")
    assert f"built for {vnni.record.target} with openvino" in ended.err
    assert "this machine is openvino/avx2 with openvino" in ended.err
    assert "rebuild it from its portable graph with --build" in ended.err


def test_with_build_it_is_rebuilt_for_this_cpu_and_run(script, copied, vnni, digits):
    ended = script("run", vnni.path, digits[5], "--build", "--top", "1", "--json", ONEDNN_MAX_CPU_ISA="AVX2")
    assert ended.code == 0
    assert ended.json["results"][0]["classes"][0]["label"] == "5"
    assert "rebuilt for openvino/avx2: " in ended.err
    assert Path(ended.json["engine"]).is_relative_to(copied)
    targets = {str(bundle.record.target) for name, bundle in Store(copied).list() if name == "resnet20:int8"}
    assert {"openvino/avx2", str(vnni.record.target)} <= targets
