"""docs/terminal.svg is drawn by docs/make_picture.py from a real build, and can be shown anywhere."""

from __future__ import annotations

import re
import runpy
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FILE = DOCS / "terminal.svg"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(DOCS / "make_picture.py"))


def lines_of(svg: str) -> list[str]:
    """The lines of a picture's terminal, top to bottom."""
    lines: dict[float, str] = defaultdict(str)
    for text in ET.fromstring(svg).iter(f"{SVG}text"):
        if "title" not in text.attrib["class"]:
            lines[float(text.attrib["y"])] += text.text.replace("\xa0", " ")
    return "".join(lines[y] for y in sorted(lines)).rstrip("\n").split("\n")


@pytest.fixture(scope="module")
def shown():
    return lines_of(FILE.read_text(encoding="utf-8"))


def test_it_is_what_the_script_draws_of_its_own_words(script, shown):
    assert shown[:2] == [f"$ {script['COMMAND']}", ""]
    assert script["picture"](script["COMMAND"], "\n".join(shown[2:])) == FILE.read_text(encoding="utf-8")


def test_it_is_small_and_loads_nothing(shown):
    svg = FILE.read_text(encoding="utf-8")
    assert len(svg) < 60_000
    assert "url(http" not in svg
    assert "@font-face" not in svg
    assert "href" not in svg


def test_it_shows_the_verbs_and_no_path_of_a_machine(shown):
    text = "\n".join(shown)
    assert {"qzoo build resnet20", "qzoo run resnet20:int8"} <= set(re.findall(r"qzoo \w+ resnet20(?::int8)?", text))
    assert not re.search(r"(?<![\w.~])/\w", text)


def test_it_shows_what_the_build_measures_but_for_its_latencies(bundles, shown):
    """Accuracy and sizes depend on no clock; the engines' ids aren't compared, as they hold versions and hardware."""
    for runtime, bundle in bundles.items():
        row = next(line for line in reversed(shown) if line.strip().startswith(runtime))
        size, right = bundle.measurement.size_bytes, bundle.measurement.accuracy["engine"]
        assert f"{right.correct}/{right.total}" in row
        assert f" {size['engine'] / size['float']:.2f}x " in row


@pytest.mark.parametrize("output", ["<&>\n", "  indented\n\nlast", "x" * 300])
def test_the_words_of_a_picture_are_those_given(script, output):
    assert lines_of(script["picture"]("qzoo list", output)) == ["$ qzoo list", "", *output.rstrip("\n").split("\n")]


def test_paths_are_shortened_to_the_default_store(script, tmp_path):
    engine = tmp_path / "bundles" / ("0123456789abcdef" * 4) / "engine.onnx"
    shortened = script["shortened"](f"  engine  {engine}\n", tmp_path)
    assert shortened == "  engine  ~/.local/share/qzoo/bundles/01234567.../engine.onnx\n"
