"""qzoo build, on resnet20 and its shipped weights."""

from __future__ import annotations

import json
import pickle
import re
import socket
from pathlib import Path

import pytest

from qzoo.store import Bundle, Store

LATENCY = re.compile(r"^  (fp32|bf16|int8) +(\S+ MB|-) +([\d.]+) ms +([\d.]+) ms +([\d.]+)x +(.+)$", re.MULTILINE)
SEVEN = ["zero", "one", "two", "three", "four", "five", "six"]
RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    return request.param


def test_the_summary_states_target_why_sizes_latencies_accuracy_and_fidelity_in_25_lines(qzoo, built, bundles, runtime):
    ended = qzoo("build", "resnet20", "--int8", "--target", runtime)
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.out.splitlines()) <= 25
    measured = json.loads((bundles[runtime].path / "measurement.json").read_text())
    target = bundles[runtime].record.target
    assert ended.out.startswith(f"resnet20 int8 for {runtime}/{target.isa} (asked for)\n")
    rows = {row[0]: row for row in LATENCY.findall(ended.out)}
    assert rows.keys() == measured["latency"].keys() >= {"fp32", "int8"}
    for precision, (_, _, median, p95, ratio, _) in rows.items():
        latency = measured["latency"][precision]
        assert (float(median), float(p95)) == (round(latency["median_ms"], 3), round(latency["p95_ms"], 3))
        assert float(ratio) == pytest.approx(
            latency["median_ms"] / measured["latency"]["fp32"]["median_ms"], abs=0.00501
        )
    assert rows["int8"][1] == f"{bundles[runtime].engine.stat().st_size / 1e6:.3f} MB"
    for kind, precision in (("float", "fp32"), ("engine", "int8")):
        assert rows[precision][5].startswith(f"{measured['accuracy'][kind]['correct']}/360 (")
    fidelity = measured["fidelity"]
    assert f"cosine {fidelity['cosine']:.5f}, SQNR {fidelity['sqnr_db']:.1f} dB, top-1 agreement" in ended.out
    assert str(bundles[runtime].engine) in ended.out


def test_auto_says_which_target_it_took_and_why(qzoo, built, bundles):
    first = qzoo("build", "resnet20").out.splitlines()[0]
    assert first.startswith(
        f"resnet20 int8 for {bundles['openvino'].record.target} (auto: openvino works here; tensorrt: "
    )


def test_json_is_one_object_with_absolute_paths_bytes_milliseconds_and_fractions(qzoo, built, bundles, runtime):
    found = qzoo("build", "resnet20", "--int8", "--target", runtime, "--json").json
    bundle = bundles[runtime]
    assert (found["model"], found["precision"], found["verified"]) == ("resnet20", "int8", "passed")
    assert found["target"] == str(bundle.record.target)
    assert found["bundle"] == str(bundle.path)
    engine = Path(found["engine"])
    assert engine.is_absolute()
    assert engine.stat().st_size == found["size_bytes"]["engine"] < found["size_bytes"]["float"]
    assert 0 < found["latency_ms"]["engine"] == found["latency_ms"]["int8"]
    assert 0 < found["latency_ms"]["float"] == found["latency_ms"]["fp32"]
    accuracy = found["accuracy"]
    assert accuracy["total"] == 360
    assert accuracy["float"] == pytest.approx(accuracy["float_correct"] / 360)
    assert accuracy["engine"] == pytest.approx(accuracy["engine_correct"] / 360)
    assert found["fidelity"].keys() >= {"cosine", "sqnr_db", "top1_agreement"}


def test_two_targets_give_an_object_of_builds(qzoo, built, bundles):
    found = qzoo("build", "resnet20", "--target", "onnxruntime", "--target", "openvino", "--json").json
    assert found.keys() == {"builds"}
    assert [one["engine"] for one in found["builds"]] == [str(bundles[name].engine) for name in RUNTIMES]


def test_two_targets_are_summed_up_side_by_side(qzoo, built, bundles):
    out = qzoo("build", "resnet20", "--target", "onnxruntime", "--target", "openvino").out
    table = out.split("\n\n")[-1].splitlines()
    assert table[0].split()[:3] == ["target", "float", "engine"]
    assert [row.split()[0] for row in table[1:]] == [str(bundles[name].record.target) for name in RUNTIMES]


def test_an_identical_build_says_that_it_was_served_from_the_store_and_changes_nothing(qzoo, built, bundles):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    assert "served from the store: the same was built before (--force rebuilds)" in qzoo("build", "resnet20").out
    assert qzoo("build", "resnet20", "--json").json["cached"] is True
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before


def test_force_builds_again_the_same_bytes_and_measures_anew(qzoo, copied, bundles):
    old = bundles["onnxruntime"]
    found = qzoo("build", "resnet20", "--target", "onnxruntime", "--force", "--json").json
    new = Bundle.open(Path(found["bundle"]))
    assert found["cached"] is False
    assert new.path == copied / "bundles" / old.id
    assert new.manifest == old.manifest
    assert (new.path / "measurement.json").read_bytes() != (old.path / "measurement.json").read_bytes()


def test_a_dry_run_says_what_would_be_built_and_builds_nothing(qzoo, home, bundles):
    text = qzoo("build", "resnet20", "--target", "openvino", "--dry-run")
    found = qzoo("build", "resnet20", "--target", "openvino", "--dry-run", "--json").json
    assert text.code == 0
    assert text.out.startswith(f"would build resnet20 int8 for {bundles['openvino'].record.target} (asked for)\n")
    assert "shipped: resnet20-digits, 10 classes" in text.out
    assert bundles["openvino"].id in text.out
    assert found["id"] == bundles["openvino"].id
    assert (found["calibration_samples"], found["held_out_samples"]) == (64, 360)
    assert Store(home).list() == []


def test_a_copied_bundle_runs_from_where_it_lies(qzoo, built, tmp_path, monkeypatch, digits):
    place = tmp_path / "copies" / "mine"
    assert qzoo("build", "resnet20", "--target", "onnxruntime", "-o", place).code == 0
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "nothing"))
    found = qzoo("run", place, digits[3], "--top", "1", "--json", "--allow-untrusted").json
    assert found["results"][0]["classes"][0]["label"] == "3"
    assert found["engine"] == str(place / "engine.onnx")


def test_copies_for_two_targets_lie_in_a_folder_each(qzoo, built, bundles, tmp_path):
    qzoo("build", "resnet20", "--target", "onnxruntime", "--target", "openvino", "-o", tmp_path / "out")
    for name in RUNTIMES:
        assert Bundle.open(tmp_path / "out" / name).id == bundles[name].id


def test_a_copy_replaces_an_older_bundle_there(qzoo, built, bundles, tmp_path):
    qzoo("build", "resnet20", "--target", "onnxruntime", "-o", tmp_path / "out")
    assert qzoo("build", "resnet20", "--target", "openvino", "-o", tmp_path / "out").code == 0
    assert Bundle.open(tmp_path / "out").id == bundles["openvino"].id
    assert not (tmp_path / "out" / "engine.onnx").exists()


def test_a_copy_never_replaces_what_is_not_a_bundle(qzoo, built, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "file").write_text("work")
    for place in (tmp_path / "thesis", tmp_path / "file"):
        ended = qzoo("build", "resnet20", "-o", place)
        assert ended.code == 2
        assert f"{place} exists and is not a bundle; give -o another directory" in ended.err
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "work"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["resnet21"], 2, "unknown model 'resnet21'; did you mean resnet20"),
        (["resnet20", "--target", "openvin"], 2, "unknown target 'openvin'; did you mean openvino?"),
        (["resnet20", "--target", "openvino/avx1"], 4, "openvino/avx1: this machine is openvino/"),
        (["resnet20", "--calib", "entropie"], 2, "unknown calibrator 'entropie'; "),
        (["resnet20", "--calib", "percentle:99"], 2, "unknown calibrator 'percentle'; did you mean percentile?"),
        (["resnet20", "--calib", "percentile:high"], 2, "'high' is not a number"),
        (["resnet20", "--calib", "percentile:101"], 2, "above 0 and at most 100"),
        (["resnet20", "--calib", "max:3"], 2, "max takes no argument"),
        (["resnet20", "--precision", "fp32", "--int8"], 2, "--precision fp32 contradicts --int8"),
        (["resnet20", "--precision", "int8", "--int8", "--fp16"], 2, "--precision int8 contradicts --int8 --fp16"),
        (["resnet20", "--calib-samples", "3"], 2, "--calib-samples 3: calibration needs at least 8"),
        (["resnet20", "--max-drop", "-1"], 2, "--max-drop -1.0: give accuracy points, 0 or more"),
        (["resnet20", "--batch-size", "0"], 2, "1 <= min <= opt <= max"),
        (["resnet20", "--labels", "nowhere.txt"], 2, "nowhere.txt"),
        (["resnet20", "--data", "digit"], 2, "unknown dataset 'digit'; did you mean digits?"),
        (["resnet20", "--data", "no/where"], 3, "no/where: neither a directory"),
        (["resnet20", "--weights", "nowhere.pth"], 3, "there is no file nowhere.pth; give a checkpoint with --weights"),
        (["resnet20", "--target", "onnxruntime", "--fp16"], 4, "don't compute in fp16; use --precision fp32 or int8"),
        (["resnet20", "--plugin-dir", "nowhere"], 2, "nowhere: there is no such folder"),
    ],
)
def test_what_cannot_be_built_is_said_before_anything_is(qzoo, home, words, code, says):
    ended = qzoo("build", *words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert ended.err.startswith("qzoo: ")
    assert Store(home).list() == []


class Code:
    """A pickle that writes a file when it is read."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def test_a_pickle_with_code_in_it_is_refused_and_not_run(qzoo, tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"fc.weight": Code(tmp_path / "pwned")}, 2))
    ended = qzoo("build", "resnet20", "--weights", tmp_path / "evil.pth")
    assert ended.code == 3
    assert "evil.pth was refused: it holds more than tensors, which could run code" in ended.err
    assert not (tmp_path / "pwned").exists()
    pickle.loads((tmp_path / "evil.pth").read_bytes())  # had it been run, it would have left its mark
    assert (tmp_path / "pwned").exists()


def test_weights_of_another_architecture_are_refused_and_the_tensors_that_do_not_fit_are_named(qzoo, tmp_path):
    import torch
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    state = squeezenet1_1(num_classes=10).state_dict()
    torch.save({**state, "fc.weight": torch.zeros(10, 64)}, tmp_path / "other.pth")
    ended = qzoo("build", "resnet20", "--weights", tmp_path / "other.pth")
    assert ended.code == 3
    assert f"{tmp_path / 'other.pth'} is not a checkpoint of this network: it lacks bn1.bias, " in ended.err
    assert "it has an unknown classifier.1.bias, classifier.1.weight" in ended.err


def test_a_checkpoint_without_the_head_is_refused_and_the_head_is_named(qzoo, tmp_path):
    import torch

    torch.save({"body.weight": torch.zeros(3, 3)}, tmp_path / "body.pth")
    ended = qzoo("build", "resnet20", "--weights", tmp_path / "body.pth")
    assert ended.code == 3
    assert "no fc.weight to count the classes by (it has body.weight)" in ended.err


@pytest.fixture
def finetuned(tmp_path):
    """Seven of resnet20's classes, saved as training does: `module.` before every name, {"state_dict": ...} around."""
    import torch
    from safetensors.torch import load_file

    from qzoo.weights import shipped_dir

    state = load_file(shipped_dir() / "resnet20-digits.safetensors")
    state = {name: value[:7] if name.startswith("fc.") else value for name, value in state.items()}
    path = tmp_path / "finetuned.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    (tmp_path / "labels.txt").write_text("\n".join(SEVEN) + "\n")
    return path


def test_a_finetuned_checkpoint_gives_an_engine_of_its_own_classes_and_labels(qzoo, finetuned, digits, tmp_path):
    words = ("--weights", finetuned, "--labels", tmp_path / "labels.txt", "--data", "photos")
    found = qzoo("build", "resnet20", "--precision", "fp32", "--target", "onnxruntime", *words, "--json").json
    record = json.loads(Path(f"{found['engine']}.json").read_text())
    assert found["weights"]["num_classes"] == 7
    assert found["accuracy"] is None
    assert "accuracy was not measured: photos carries no labels" in found["notes"]
    assert record["labels"] == SEVEN
    assert record["outputs"][0]["shape"] == [7]
    run = qzoo("run", found["engine"], *digits[:7], "--top", "1", "--json").json
    assert [one["classes"][0]["label"] for one in run["results"]] == SEVEN


def test_labels_of_another_count_end_with_2(qzoo, finetuned, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    ended = qzoo("build", "resnet20", "--weights", finetuned, "--labels", tmp_path / "labels.txt", "--data", "photos")
    assert ended.code == 2
    assert f"--labels {tmp_path / 'labels.txt'} names 3 classes, the weights have 7" in ended.err


def test_an_engine_that_loses_too_much_ends_with_5_names_the_worst_layers_and_is_not_stored(qzoo, home):
    ended = qzoo("build", "resnet20", "--target", "onnxruntime", "--calib", "percentile:30")
    assert ended.code == 5
    assert re.search(r"resnet20 drops [\d.]+ points \(356 -> \d+ of 360\), allowed are 1 \(--max-drop\)", ended.err)
    layers = re.search(r"worst SQNR: (.*); try another --calib", ended.err)[1].split(", ")
    assert len(layers) == 5
    decibels = [float(re.fullmatch(r"(?:conv1|fc|avgpool|layer\S+) (\S+) dB", layer)[1]) for layer in layers]
    assert decibels == sorted(decibels)
    assert Store(home).list() == []


def plugin(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    return folder


def test_a_broken_plugin_is_named_on_stderr_and_stops_nothing(qzoo, built, tmp_path):
    broken = plugin(tmp_path / "cli_broken_plugin", "raise RuntimeError('no luck today')\n")
    ended = qzoo("build", "resnet20", "--json", "--plugin-dir", broken)
    assert ended.code == 0
    assert ended.json["cached"] is True
    assert f"plugin cli_broken_plugin ({broken}) was left out: RuntimeError: no luck today" in ended.err


def test_a_second_plugin_with_the_same_model_ends_with_8_and_both_are_named(qzoo, tmp_path):
    again = "import qzoo, qzoo_resnet\n@qzoo.hookimpl\ndef qzoo_models():\n    yield from qzoo_resnet.qzoo_models()\n"
    ended = qzoo("build", "resnet20", "--plugin-dir", plugin(tmp_path / "cli_second_resnet", again))
    assert ended.code == 8
    assert re.search(r"model 'resnet\d+' is provided twice: by plugin resnet .* by plugin cli_second_resnet", ended.err)


def test_a_misspelt_hook_ends_with_8_and_names_the_nearest(qzoo, tmp_path):
    wrong = plugin(tmp_path / "cli_misspelt", "import qzoo\n@qzoo.hookimpl\ndef qzoo_modles():\n    return []\n")
    ended = qzoo("build", "resnet20", "--plugin-dir", wrong)
    assert ended.code == 8
    assert "implements qzoo_modles, which is no hook; did you mean qzoo_models?" in ended.err


def test_without_network_the_three_ways_out_are_named(script, home):
    with socket.socket() as taken:  # bound, but not listening: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = script("build", "resnet50", HTTPS_PROXY=proxy, https_proxy=proxy, NO_PROXY="", no_proxy="")
    assert (ended.code, ended.out) == (3, "")
    for way in ("--weights PATH", "--weights random", "connect to the network and retry"):
        assert way in ended.err
    assert "Traceback" not in ended.err
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_with_json_stdout_is_the_object_alone_and_a_build_off_a_terminal_is_quiet(script, home):
    ended = script("build", "resnet20", "--precision", "fp32", "--target", "openvino", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["precision"] == "fp32"
    assert ended.err == ""
