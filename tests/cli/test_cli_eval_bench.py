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


def test_eval_of_several_compares_them_with_the_first(qzoo, built, bundles):
    words = ("resnet20", "resnet20:int8", "--target", "onnxruntime", "--target", "openvino")
    found = qzoo("eval", *words, "--json").json["evaluations"]
    assert [one["target"] for one in found] == [None, *(str(bundle.record.target) for bundle in bundles.values())]
    text = qzoo("eval", *words, "--samples", "20").out
    assert all(text.count(name) == 2 for name in ("resnet20 float, in PyTorch", *map(name_of, bundles.values())))


def name_of(bundle):
    return f"resnet20 int8 for {bundle.record.target}"


def test_eval_of_models_alone_takes_no_target(qzoo):
    ended = qzoo("eval", "resnet20", "--target", "openvino")
    assert (ended.code, ended.out) == (2, "")
    assert "resnet20 is a model; give its tag too" in ended.err


def test_an_engine_file_is_not_run_as_for_another_target_than_its_own(qzoo, bundles):
    ended = qzoo("bench", bundles["openvino"].path, "--target", "onnxruntime")
    assert ended.code == 2
    assert f"is for {bundles['openvino'].record.target}, not for onnxruntime; leave --target out" in ended.err


def test_eval_of_an_engine_file_alone_asks_for_data(qzoo, built, bundles, tmp_path):
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


def test_bench_compares_engines_with_the_first(qzoo, built, bundles):
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


def test_bench_of_a_reference_takes_several_targets(qzoo, built, bundles):
    found = qzoo(
        "bench", "resnet20:int8", "--target", "openvino", "--target", "onnxruntime", "--duration", "0.2", "--json"
    ).json
    assert [one["engine"] for one in found["engines"]] == [
        str(bundles[runtime].engine) for runtime in ("openvino", "onnxruntime")
    ]


@pytest.mark.parametrize(
    ("words", "message"), [(("--duration", "0"), "--duration 0.0"), (("--batch-size", "65"), "takes 1 to 64")]
)
def test_bench_refuses_what_makes_no_sense(qzoo, built, words, message):
    ended = qzoo("bench", "resnet20:int8", *words)
    assert (ended.code, message in ended.err) == (2, True)


def test_layers_of_a_runtime_that_times_none_are_said_to_be_missing(qzoo, built):
    ended = qzoo("bench", "resnet20:int8", "--target", "onnxruntime", "--duration", "0.1", "--layers")
    assert ended.code == 0
    assert ended.out.splitlines()[-1].endswith("its runtime tells no layer's time")
