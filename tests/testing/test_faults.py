"""Every kind of wrong plugin is caught by the right check, which leads to the right line."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import WRONG, write_wrong

from qzoo.errors import BrokenPlugin
from qzoo.testing import CHECKS, check_model, subjects_in
from qzoo.testing.scaffold import scaffold


def needed(name: str) -> list[str]:
    """A check and, before it, what it needs; but not what would load the plugin's own torch code in this process."""
    by_name = {check.name: check for check in CHECKS}
    if name == "globals":
        return [name]
    return [*(one for need in by_name[name].needs for one in needed(need)), name]


def checks_for(name: str):
    return [check for check in CHECKS if check.name in needed(name)]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_plugin_fails_the_right_check_which_leads_to_its_line(wrong, tmp_path, cache):
    (subject,) = subjects_in(write_wrong(wrong, tmp_path), cache)
    *before, last = check_model(subject, checks=checks_for(wrong.check)).findings
    assert {one.status for one in before} <= {"passed", "skipped"}, before
    assert (last.check, last.status) == (wrong.check, "failed")
    assert wrong.says in last.evidence
    file, _, number = last.where.rpartition(":")
    assert wrong.line in Path(file).read_text().splitlines()[int(number) - 1]


def test_what_comes_after_a_failed_check_is_blocked_by_it(tmp_path, cache):
    wrong = next(one for one in WRONG if one.name == "swap-that-matches-nothing")
    renamed = type(wrong)("blocks-the-rest", wrong.check, wrong.says, wrong.line, wrong.edits)
    (subject,) = subjects_in(write_wrong(renamed, tmp_path), cache)
    report = check_model(subject, checks=[check for check in CHECKS if check.name != "globals"])
    statuses = {one.check: one.status for one in report.findings}
    assert {name for name, status in statuses.items() if status == "failed"} == {"swaps"}
    blocked = {name for name, status in statuses.items() if status == "blocked"}
    assert blocked == {"build", "coverage", "export", "engines", "determinism"}
    assert (report.passed, report.counted) == (6, 12)


def test_a_plugin_that_raises_when_it_is_loaded_is_told_with_its_line(tmp_path, cache):
    project = scaffold("wrong-at-import", tmp_path)
    spec = project / "wrong_at_import" / "spec.py"
    spec.write_text(spec.read_text() + "\n\nundefined_name\n")
    line = len(spec.read_text().splitlines())
    with pytest.raises(BrokenPlugin, match=rf"spec\.py:{line}: NameError: name 'undefined_name'"):
        subjects_in(project, cache)


def test_a_plugin_without_models_is_told(tmp_path, cache):
    project = scaffold("wrong-empty", tmp_path)
    init = project / "wrong_empty" / "__init__.py"
    init.write_text(init.read_text().replace("yield SPEC", "yield from ()"))
    with pytest.raises(BrokenPlugin, match="its hooks give no model to check"):
        subjects_in(project, cache)
