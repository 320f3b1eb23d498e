"""qzoo eval and qzoo bench."""

from __future__ import annotations

import pytest


def test_eval_shows_what_the_build_measured(qzoo, built, bundles):
    measured = bundles["onnxruntime"].measurement.accuracy["engine"]
    ended = qzoo("eval", "resnet20:int8", "--target", "onnxruntime")
    assert ended.code == 0
    assert f"({measured.correct}/{measured.total})" in ended.out
    assert "top-5" in ended.out
    assert "images/s" in ended.out


def test_eval_of_a_model_runs_its_float_network(qzoo, bundles):
    found = qzoo("eval", "resnet20", "--json").json
    measured = bundles["onnxruntime"].measurement.accuracy["float"]
    assert found["top1"] == {"correct": measured.correct, "total": measured.total}
    assert (found["precision"], found["target"]) == ("float", None)


def test_eval_of_an_engine_file_alone_asks_for_data(qzoo, bundles, tmp_path):
    engine = bundles["onnxruntime"].engine
    for file in (engine, engine.with_name(f"{engine.name}.json")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    ended = qzoo("eval", tmp_path / engine.name)
    assert (ended.code, "give --data" in ended.err) == (2, True)
    assert (
        qzoo("eval", tmp_path / engine.name, "--data", "digits", "--samples", "50", "--json").json["top1"]["total"]
        == 50
    )


def test_eval_on_data_without_labels_is_refused(qzoo, built):
    ended = qzoo("eval", "resnet20:int8", "--data", "photos")
    assert (ended.code, "without a label" in ended.err) == (3, True)


def test_eval_of_what_is_not_there_says_what_is(qzoo, built):
    ended = qzoo("eval", "resnet50:int8")
    assert ended.code == 7
    assert "resnet20:int8" in ended.err


def test_bench_compares_engines_with_the_first(qzoo, bundles):
    paths = [bundle.path for bundle in bundles.values()]
    found = qzoo("bench", *paths, "--duration", "0.3", "--batch-size", "4", "--threads", "1", "--json").json["engines"]
    assert [one["engine"] for one in found] == [str(bundle.engine) for bundle in bundles.values()]
    assert {one["batch"] for one in found} == {4}
    assert found[0]["ratio"] is None
    low, high = found[1]["ratio_ci95"]
    assert low <= found[1]["ratio"] <= high
    text = qzoo("bench", *paths, "--duration", "0.3").out
    assert "p99" in text
    assert "of the first" in text


@pytest.mark.parametrize(
    ("words", "message"), [(("--duration", "0"), "--duration 0.0"), (("--batch-size", "65"), "takes 1 to 64")]
)
def test_bench_refuses_what_makes_no_sense(qzoo, built, words, message):
    ended = qzoo("bench", "resnet20:int8", *words)
    assert (ended.code, message in ended.err) == (2, True)
