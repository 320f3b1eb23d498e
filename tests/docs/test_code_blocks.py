"""Every code block of README, docs/ and the plugins' pages, run as a reader would, page by page, top to bottom."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = [page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts]
PAGES = sorted([ROOT / "README.md", *DOCS, *ROOT.glob("plugins/*/README.md")])
FENCE = re.compile(r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    text: str


def blocks_of(page: Path) -> list[Block]:
    return [Block(m["language"], m["title"], m["text"]) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]


@pytest.fixture
def home(built_home, bundles, tmp_path):
    return shutil.copytree(built_home, tmp_path / "home")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_runs(page, home, tmp_path):
    folder = tmp_path / "reader"
    folder.mkdir()
    for block in blocks_of(page):
        if block.title is not None:
            target = folder / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            if target.suffix == ".toml":
                tomllib.loads(block.text)
        elif block.language == "python":
            _run([sys.executable, "-c", block.text], folder, home)
        elif block.language == "sh":
            for line in block.text.splitlines():
                _run_line(line, folder, home)
        else:
            assert block.language in {"text", "json"}, f"{page.name}: a block in {block.language!r} is run by nothing"


def _run_line(line: str, folder: Path, home: Path) -> None:
    if line.startswith("make "):  # what these do is run by CI itself; here only that make knows them
        line = line.replace("make ", f"make -n -C {ROOT} ", 1)
    _run(["bash", "-ec", line], folder, home)


def _run(command: list[str], folder: Path, home: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "QZOO_HOME": str(home)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def test_pages_are_found_and_have_blocks():
    assert {"README.md", "quickstart.md", "plugins.md"} <= {page.name for page in PAGES}
    assert all(blocks_of(ROOT / page) for page in ("README.md", "docs/quickstart.md", "docs/plugins.md"))


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
