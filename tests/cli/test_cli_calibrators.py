"""qzoo with --calib all and auto."""

from __future__ import annotations

import pytest
from small_builds import SMALL

from qzoo.spec import COMPARED_CALIBRATORS


def test_the_calibrators_are_reported_on_and_the_report_is_served_from_the_store(qzoo, home):
    said = [qzoo(*SMALL, "--calib", "all").out.splitlines() for _ in range(2)]
    begins = [lines.index("  calibrators on 64 other calibration images, to the float model") for lines in said]
    tables = [lines[begin : lines.index("", begin)] for lines, begin in zip(said, begins, strict=True)]
    assert tables[0] == tables[1]
    assert [line.split()[0] for line in tables[0][2:]] == [*COMPARED_CALIBRATORS]
    assert sum("built with" in line for line in tables[0]) == sum("best" in line for line in tables[0]) == 1
    assert [any("served from the store" in line for line in lines) for lines in said] == [False, True]


def test_a_plain_build_is_no_answer_to_a_report_on_the_calibrators(qzoo, home):
    plain = qzoo(*SMALL, "--json").json
    reported = qzoo(*SMALL, "--calib", "all", "--json").json
    assert (plain["id"], plain["engine"]) == (reported["id"], reported["engine"])
    assert (len(plain["calibration"]["compared"]), len(reported["calibration"]["compared"])) == (0, 6)
    assert not reported["cached"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("build", "resnet20", "--calib", "entrophy"), "did you mean entropy"),
        (("build", "resnet20", "--calib", "mse:2"), "mse takes no argument"),
        (("build", "resnet20", "--calib", "auto", "--precision", "fp32"), "compares quantized networks"),
        (("build", "resnet20", "--calib", "all", "--qat-epochs", "1"), "--calib auto to begin from the best"),
        (("export", "resnet20", "--calib", "all", "-o", "never.onnx"), "to export a graph name one calibrator"),
        (("train", "resnet20", "--qat", "--calib", "all", "--out", "never"), "takes one of them, or auto"),
    ],
)
def test_calibrators_that_make_no_sense_end_with_2(qzoo, home, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    ended = qzoo(*words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert not any(tmp_path.glob("never*"))
