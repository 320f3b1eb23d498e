"""docs/placement.md shows the graphs that qzoo exports."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "placement.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(DOCS / "make_placements.py"))


@pytest.fixture(scope="module")
def drawn(script):
    return script["drawings"]()


def test_every_drawing_of_the_page_is_what_the_script_draws(script, drawn):
    assert set(re.findall(r"<!-- (\w+) -->", PAGE)) == drawn.keys()
    assert script["filled"](PAGE, drawn) == PAGE


def test_the_branches_of_a_concat_and_its_reader_have_one_scale(drawn):
    (line,) = [line for line in drawn["concat"].splitlines() if "Concat(" in line]
    assert len(set(re.findall(r"\[input (\d+)\]", line))) == 1
    assert drawn["concat"].splitlines()[-1].count(f"[input {re.search(r'input (.)', line)[1]}]") == 1


def test_both_inputs_of_an_add_have_pairs_of_their_roles(drawn):
    (line,) = [line for line in drawn["add"].splitlines() if "Add(" in line]
    assert re.search(r"\[input\+skip \d+\], conv2 \[branch \d+\]", line)
