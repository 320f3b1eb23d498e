"""qzoo plugin: a new one is written, and checked."""

from __future__ import annotations

import pytest
from test_cli_schemas import check as fits_schema


def test_a_new_plugin_passes_its_check_from_the_folder_it_was_made_in(qzoo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = qzoo("plugin", "new", "cli-net", "--json").json
    fits_schema("plugin-new", made)
    assert made["folder"] == str(tmp_path / "cli-net")
    ended = qzoo("plugin", "check", "--json")
    assert ended.code == 0, ended.err
    fits_schema("plugin-check", ended.json)
    assert (ended.json["score"], ended.json["passed"], ended.json["counted"]) == (1.0, 13, 13)
    assert [model["model"] for model in ended.json["models"]] == ["cli-net"]


def test_a_wrong_plugin_ends_with_8_and_the_line_to_look_at(qzoo, tmp_path):
    qzoo("plugin", "new", "cli-wrong", "--dir", tmp_path)
    spec = tmp_path / "cli-wrong" / "cli_wrong" / "spec.py"
    spec.write_text(spec.read_text().replace('head="head"', 'head="tail"'))
    line = 1 + [line.strip() for line in spec.read_text().splitlines()].index('head="tail",')
    ended = qzoo("plugin", "check", "--dir", tmp_path / "cli-wrong")
    assert ended.code == 8
    assert f"look at {spec}:{line}" in ended.out
    assert "FAILED  builder     head 'tail' is no module with a weight" in ended.out
    assert "blocked engines" in ended.out
    assert "score 14%: 2 of 14 checks passed" in ended.out
    assert "12 of 14 checks did not pass" in ended.err


def test_only_runs_what_it_names_in_order_on_the_runtimes_that_are_named(qzoo):
    words = ("--only", "engines", "--only", "spec", "--target", "onnxruntime", "--json")
    ended = qzoo("plugin", "check", "resnet20", *words)
    assert ended.code == 0, ended.err
    fits_schema("plugin-check", ended.json)
    assert ended.json["checks"] == ["spec", "engines"]
    assert (ended.json["score"], ended.json["passed"], ended.json["counted"]) == (1.0, 2, 2)
    findings = ended.json["models"][0]["findings"]
    assert [one["check"] for one in findings] == ["spec", "engines"]
    assert findings[1]["evidence"].startswith("onnxruntime ")
    assert "openvino" not in findings[1]["evidence"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("check", "resnet20", "--only", "coverge"), 2, "no check 'coverge'; the checks are spec, imports, builder,"),
        (("check", "resnet20", "--target", "onxruntime"), 2, "did you mean onnxruntime"),
        (("check", "resnet20", "--dir", "."), 2, "not both"),
        (("check", "resnt20"), 2, "did you mean resnet20"),
        (("check", "--dir", "no/such"), 2, "there is no such folder"),
        (("new", "Bad Name"), 2, "begin with a lowercase letter"),
        (("new", "torch"), 2, "has a module of that name"),
        (("new", "somenet", "--from", "torchvision:resnet19"), 2, "did you mean resnet18"),
        (("new", "somenet", "--from", "keras:resnet50"), 2, "write torchvision:NAME, timm:NAME or blank"),
        (("new",), 2, "Missing argument 'NAME'"),
    ],
)
def test_words_that_are_off_end_with_2(qzoo, tmp_path, monkeypatch, words, code, says):
    monkeypatch.chdir(tmp_path)
    ended = qzoo("plugin", *words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert list(tmp_path.glob("[!h]*")) == []
