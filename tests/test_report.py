"""Text and JSON of bundles, measured or not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.records import Accuracy, CalibratorTrial, Fidelity, Latency, Measurement, encode
from qzoo.report import aligned, build_object, build_summary, bundle_lines, comparison, engine_lines
from qzoo.store import Bundle

CELL = st.text("abc/.0-", min_size=1, max_size=12)
TABLES = st.integers(1, 5).flatmap(lambda width: st.lists(st.tuples(*[CELL] * width), min_size=1, max_size=6))
NOT_MEASURED = {
    "latency": {},
    "accuracy": None,
    "fidelity": None,
    "engine_fidelity": None,
    "lowering_cost_db": None,
    "size_bytes": {"float": None, "engine": None},
}


@pytest.fixture
def with_measurement(bundles, tmp_path):
    """`with_measurement(notes=...)` is a bundle like onnxruntime's that measured otherwise."""

    def changed(**changes: object) -> Bundle:
        place = tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"
        shutil.copytree(bundles["onnxruntime"].path, place)
        measured: Measurement = replace(bundles["onnxruntime"].measurement, **changes)
        (place / "measurement.json").write_bytes(encode(measured))
        return Bundle.open(place)

    return changed


def in_json(bundle: Bundle):
    """What `qzoo build --json` prints of a bundle, read back."""
    return json.loads(encode(build_object(bundle, cached=False, reason="asked for")))


def rows(lines: list[str]) -> list[list[str]]:
    """The table of a summary, cell by cell."""
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["size", "latency"])
    last = lines.index("", first)
    return [line.split() for line in lines[first:last]]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TABLES)
def test_every_column_begins_where_its_widest_cell_lets_it(table):
    lines = aligned(table)
    assert [line.split() for line in lines] == [list(row) for row in table]
    assert all(line == line.rstrip() for line in lines)
    for column in range(len(table[0])):
        begins = 2 + sum(2 + max(len(row[i]) for row in table) for i in range(column))
        assert all(line[begins:].startswith(row[column]) for line, row in zip(lines, table, strict=True))


def test_a_summary_has_at_most_25_lines_however_many_notes_and_precisions(with_measurement):
    latency = Latency(median_ms=1.0, p95_ms=2.0, batch=1, threads=2, rounds=30)
    notes = tuple(f"remark {i}" for i in range(50))
    bundle = with_measurement(notes=notes, latency=dict.fromkeys(("fp32", "bf16", "fp16", "int8"), latency))
    lines = build_summary(bundle, cached=True, reason="auto: openvino works here")
    assert len(lines) <= 25
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("  note ")] == [
        "remark 0",
        "remark 1",
        "remark 2",
        "and 47 more, which --json shows",
    ]


def test_four_notes_are_all_shown(with_measurement):
    lines = build_summary(with_measurement(notes=("a", "b", "c", "d")), cached=False, reason="asked for")
    assert [line.split()[1] for line in lines if line.startswith("  note ")] == ["a", "b", "c", "d"]


def test_json_has_every_note(with_measurement):
    notes = tuple(f"remark {i}" for i in range(50))
    assert in_json(with_measurement(notes=notes))["notes"] == list(notes)


def test_what_was_not_measured_is_a_dash(with_measurement):
    lines = build_summary(with_measurement(**NOT_MEASURED), cached=False, reason="asked for")
    assert rows(lines)[1:] == [[precision, *"-----"] for precision in ("fp32", "int8")]
    assert not any("fidelity" in line or "rounds" in line for line in lines)


def test_what_was_not_measured_is_null_in_json(with_measurement):
    found = in_json(with_measurement(**NOT_MEASURED))
    assert (found["latency_ms"], found["accuracy"], found["fidelity"]) == (None, None, None)
    assert found["size_bytes"] == {"float": None, "engine": None}


def test_what_could_not_be_run_here_is_planned(with_measurement):
    bundle = with_measurement(**NOT_MEASURED, verified="planned")
    summary = build_summary(bundle, cached=False, reason="asked for")
    assert "  verified     planned: built, but not run here" in summary
    assert not any("qzoo run" in line for line in summary)
    assert in_json(bundle)["verified"] == "planned"


def test_ratios_are_to_the_runtimes_own_fp32(with_measurement):
    def latency(median: float) -> Latency:
        return Latency(median_ms=median, p95_ms=9.0, batch=1, threads=2, rounds=30)

    bundle = with_measurement(
        latency={"fp32": latency(4.0), "int8": latency(1.0)}, size_bytes={"float": 8_000_000, "engine": 2_000_000}
    )
    table = {row[0]: row for row in rows(build_summary(bundle, cached=False, reason=""))[1:]}
    assert (table["fp32"][7], table["int8"][7]) == ("1.00x", "0.25x")
    assert comparison([bundle])[1].split()[-6:] == ["2.000", "MB", "0.25x", "1.000", "ms", "0.25x"]


def test_random_weights_show_no_agreement(with_measurement, bundles):
    fidelity = replace(bundles["onnxruntime"].measurement.fidelity, top1_agreement=None)
    lines = build_summary(with_measurement(fidelity=fidelity), cached=False, reason="")
    (line,) = [line for line in lines if line.startswith("  fidelity")]
    assert "SQNR" in line
    assert "agreement" not in line


def test_served_from_the_store_is_said_only_where_it_was(bundles):
    def says(cached: bool) -> bool:
        lines = build_summary(bundles["openvino"], cached=cached, reason="")
        return any("served from the store" in line for line in lines)

    assert (says(True), says(False)) == (True, False)


def test_the_command_it_advises_names_the_stored_reference(bundles):
    last = build_summary(bundles["openvino"], cached=False, reason="")[-1]
    assert last == "  run it       qzoo run resnet20:int8 IMAGE"


def test_a_bundle_that_measured_nothing_can_still_be_shown(with_measurement):
    assert rows(bundle_lines(with_measurement(**NOT_MEASURED)))[2] == ["int8", *"-----"]


def test_an_engines_lines_give_five_labels_and_how_many_there_are(bundles):
    record = replace(bundles["openvino"].record, labels=tuple(f"class{i}" for i in range(1000)))
    assert "  labels       1000: class0, class1, class2, class3, class4, ..." in engine_lines(record)
    assert "  labels       2: cat, dog" in engine_lines(replace(record, labels=("cat", "dog")))


def test_compared_calibrators_are_a_table_with_the_best_and_the_builds_own_marked(with_measurement):
    trials = tuple(
        CalibratorTrial(
            calibrator=name,
            chosen=name == "max",
            fidelity=Fidelity(cosine=1.0, sqnr_db=decibels, top1_agreement=0.5, samples=64),
            accuracy=Accuracy(correct=16, total=64),
        )
        for name, decibels in (("max", 20.25), ("mse", 30.5))
    )
    bundle = with_measurement(calibrators=trials)
    lines = build_summary(bundle, cached=False, reason="asked for")
    first = next(i for i, line in enumerate(lines) if line.startswith("  calibrators on 64 other calibration images"))
    assert lines[first + 2].split() == ["max", "20.25", "dB", "50.00%", "16/64", "(25.00%)", "built", "with"]
    assert lines[first + 3].split() == ["mse", "30.50", "dB", "50.00%", "16/64", "(25.00%)", "best"]
    assert lines[first + 2 :][:2] == bundle_lines(bundle)[bundle_lines(bundle).index(lines[first + 2]) :][:2]
    compared = in_json(bundle)["calibration"]["compared"]
    assert [(one["calibrator"], one["chosen"], one["fidelity"]["sqnr_db"]) for one in compared] == [
        ("max", True, 20.25),
        ("mse", False, 30.5),
    ]


def test_nothing_is_said_of_calibrators_that_were_not_compared(bundles):
    lines = build_summary(bundles["onnxruntime"], cached=False, reason="asked for")
    assert not any("calibrators" in line for line in lines)
    assert in_json(bundles["onnxruntime"])["calibration"]["compared"] == []
