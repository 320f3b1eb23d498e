"""qzoo info, of models and of engines."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest


def test_a_model_shows_what_its_plugin_declares(qzoo):
    ended = qzoo("info", "resnet20")
    facts = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert ended.code == 0
    assert facts[0][0] == "resnet20:"
    assert ["input", "input: N x 3 x 32 x 32 float32"] in facts
    assert ["classes", "10 (read from fc)"] in facts
    assert ["weights", "shipped: resnet20-digits"] in facts
    assert ["fusion", "conv1 + bn1 + relu"] in facts
    assert ["swap", "layer*.*.add -> qzoo.quant.modules:QuantAdd"] in facts
    assert ["training", "sgd, one-cycle, lr 0.1, batch 64, 24 epochs"] in facts


def test_a_model_in_json_is_its_spec_and_where_it_comes_from(qzoo):
    found = qzoo("info", "resnet20", "--json").json
    assert found["spec"]["name"] == "resnet20"
    assert found["spec"]["input"]["shape"] == [3, 32, 32]
    assert found["provenance"]["plugin"] == "resnet"


def test_modules_lists_the_paths_that_fusions_and_swaps_are_written_in(qzoo):
    from qzoo_resnet.model import resnet20

    found = dict(qzoo("info", "resnet20", "--modules", "--json").json["modules"])
    assert found == {path: type(module).__name__ for path, module in resnet20(10).named_modules() if path}
    lines = qzoo("info", "resnet20", "--modules").out.splitlines()
    assert all(f"  {path}  {kind}" in lines for path, kind in found.items())


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_bundle_shows_what_went_into_it_and_every_file_with_its_digest(qzoo, built, bundles, runtime):
    ended = qzoo("info", "resnet20:int8", "--target", runtime)
    bundle, inputs = bundles[runtime], bundles[runtime].manifest.inputs
    assert (ended.code, ended.err) == (0, "")
    first, *lines = ended.out.splitlines()
    target = bundle.record.target
    assert first == f"resnet20 int8 for {target}, {runtime} {target.version}"
    facts = {line.split()[0]: line for line in lines if line.strip()}
    assert bundle.id in facts["id"]
    assert "resnet 1.0.0" in facts["plugin"]
    assert f"shipped: resnet20-digits, 10 classes, sha256:{inputs.weights.sha256}" in facts["weights"]
    assert f"percentile:99.99, sample list sha256:{inputs.sample_list_sha256}" in facts["calibration"]
    assert f"{bundle.measurement.accuracy['engine'].correct}/360" in facts["int8"]
    assert f"{bundle.measurement.latency['int8'].median_ms:.3f} ms" in facts["int8"]
    assert f"SQNR {bundle.measurement.fidelity.sqnr_db:.1f} dB" in facts["fidelity"]
    for path in bundle.path.iterdir():
        if path.name not in ("manifest.json", "measurement.json"):
            data = path.read_bytes()
            assert facts[path.name].split()[1:] == [
                f"{len(data) / 1e6:.3f}",
                "MB",
                f"sha256:{hashlib.sha256(data).hexdigest()}",
            ]


def test_a_bundle_in_json_is_its_manifest_record_and_measurement(qzoo, built, bundles):
    found = qzoo("info", "resnet20:int8", "--target", "openvino", "--json").json
    place = bundles["openvino"].path
    assert found["engine"] == str(place / "engine.blob")
    assert found["manifest"] == json.loads((place / "manifest.json").read_text())
    assert found["record"] == json.loads((place / "engine.blob.json").read_text())
    assert found["measurement"] == json.loads((place / "measurement.json").read_text())


def test_reference_directory_and_engine_file_show_the_same(qzoo, built, bundles):
    bundle = bundles["openvino"]
    assert len({qzoo("info", name).out for name in ("resnet20:int8", bundle.path, bundle.engine)}) == 1


def test_an_engine_file_alone_shows_its_record(qzoo, bundles, tmp_path):
    for name in ("engine.onnx", "engine.onnx.json"):
        shutil.copy(bundles["onnxruntime"].path / name, tmp_path / name)
    ended = qzoo("info", tmp_path / "engine.onnx")
    assert ended.out.splitlines()[0].startswith("resnet20 int8 for onnxruntime/")
    assert f"sha256:{bundles['onnxruntime'].record.sha256}" in ended.out
    found = qzoo("info", tmp_path / "engine.onnx", "--json").json
    assert found["record"]["labels"] == list("0123456789")
    assert (found["manifest"], found["measurement"]) == (None, None)


def test_a_manifest_that_is_damaged_ends_with_6(qzoo, bundles, tmp_path):
    place = shutil.copytree(bundles["onnxruntime"].path, tmp_path / "mine")
    (place / "manifest.json").unlink()
    (place / "manifest.json").write_text('{"id": ')
    ended = qzoo("info", place)
    assert ended.code == 6
    assert f"{place / 'manifest.json'} is not a valid Manifest" in ended.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["resnt50"], 2, "unknown model 'resnt50'; did you mean resnet50"),
        (["resnet20:int8"], 7, "resnet20:int8 is not in the store"),
        (["./nothing"], 2, "there is no such engine file or bundle directory"),
        (["resnet50", "--target", "openvino"], 2, "resnet50 is a model; give its tag too"),
        (["resnet50:int8", "--modules"], 2, "--modules lists a model's modules, and resnet50:int8 is an engine"),
    ],
)
def test_what_cannot_be_shown_is_said(qzoo, words, code, says):
    ended = qzoo("info", *words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
