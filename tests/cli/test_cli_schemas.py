"""What is printed and kept is what docs/schema/ says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from small_builds import SMALL

from qzoo.cli.schemas import BESIDE, FILES, OBJECTS, file_name, schema

FOLDER = Path(__file__).parents[2] / "docs" / "schema"


def check(name: str, value: object) -> None:
    validator = Draft202012Validator(json.loads((FOLDER / file_name(name)).read_text()))
    assert [error.message for error in validator.iter_errors(value)] == []


@pytest.mark.parametrize("name", [*OBJECTS, *FILES, *BESIDE])
def test_the_kept_schema_is_current_and_valid(name):
    kept = (FOLDER / file_name(name)).read_bytes()
    assert kept == schema(name), "run `python docs/make_schemas.py`"
    Draft202012Validator.check_schema(json.loads(kept))


def test_no_other_schemas_are_kept():
    assert {path.name for path in FOLDER.iterdir()} == {file_name(name) for name in (*OBJECTS, *FILES, *BESIDE)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("build", ("build", "resnet20", "--target", "openvino")),
        ("builds", ("build", "resnet20", "--target", "openvino", "--target", "onnxruntime")),
        ("dry-run", ("build", "resnet20", "--dry-run")),
        ("dry-runs", ("build", "resnet20", "resnet18", "--weights", "random", "--dry-run")),
        ("bench", ("bench", "resnet20:int8", "--duration", "0.1")),
        ("eval", ("eval", "resnet20:int8", "--samples", "20")),
        ("evals", ("eval", "resnet20:int8", "--target", "openvino", "--target", "onnxruntime", "--samples", "20")),
        ("store-ls", ("store", "ls")),
        ("info-engine", ("store", "show", "resnet20:int8")),
        ("store-rm", ("store", "rm", "resnet20:int8")),
        ("store-gc", ("store", "gc", "--cache")),
        ("store-verify", ("store", "verify")),
        ("info-model", ("info", "resnet20", "--modules")),
        ("info-engine", ("info", "resnet20:int8")),
        ("list", ("list",)),
        ("doctor", ("doctor",)),
        ("config", ("config",)),
        ("key", ("key", "new")),
        ("keys", ("key", "list")),
        ("verify", ("verify", "all")),
    ],
)
def test_a_verbs_output_is_what_its_schema_says(qzoo, copied, tmp_path, monkeypatch, name, words):
    monkeypatch.setenv("QZOO_CONFIG", str(tmp_path / "config.toml"))
    ended = qzoo(*words, "--json")
    assert ended.code == 0, ended.err
    check(name, ended.json)


def test_what_needs_another_call_first_prints_what_its_schema_says(qzoo, copied):
    assert qzoo("key", "new").code == 0
    check("sign", qzoo("sign", "resnet20:int8", "--json").json)
    check("keys", qzoo("key", "list", "--json").json)
    check("key", qzoo("key", "revoke", "0" * 64, "--json").json)


def test_a_comparison_of_calibrators_is_what_its_schema_says(qzoo, home):
    found = qzoo(*SMALL, "--calib", "auto", "--json").json
    check("build", found)
    assert len(found["calibration"]["compared"]) == 6
    check("measurement.json", json.loads((Path(found["bundle"]) / "measurement.json").read_text()))


def test_runs_output_is_what_its_schema_says(qzoo, built, digits):
    check("run", qzoo("run", "resnet20:int8", *digits[:2], "--json").json)


def test_the_layers_of_an_engine_are_what_their_schema_says(planned):
    check("layers.json", json.loads((planned.path / "layers.json").read_text()))


@pytest.mark.parametrize("name", [name for name in FILES if name != "layers.json"])
def test_a_bundles_files_are_what_their_schemas_say(bundles, name):
    for bundle in bundles.values():
        file = f"{bundle.engine.name}.json" if name == "engine.json" else name
        check(name, json.loads((bundle.path / file).read_text()))


def test_the_schemas_would_notice_a_missing_and_a_mistyped_field(bundles):
    manifest = json.loads((bundles["openvino"].path / "manifest.json").read_text())
    validator = Draft202012Validator(json.loads((FOLDER / file_name("manifest.json")).read_text()))
    assert not validator.is_valid({key: value for key, value in manifest.items() if key != "id"})
    assert not validator.is_valid({**manifest, "engine": 3})
