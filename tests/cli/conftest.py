"""Two ways to run the command: in this process, and as the installed script in its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from qzoo.cli.main import entry

SCRIPT = Path(sys.executable).with_name("qzoo")
Command = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """QZOO_HOME: empty, and this test's own. Whatever plugins do to sys.path ends with the test."""
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("QZOO_PLUGINS", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path / "home"


@pytest.fixture
def built(built_home, bundles, home, monkeypatch) -> Path:
    """QZOO_HOME: where resnet20:int8 is stored for both CPU runtimes. Not to be changed."""
    monkeypatch.setenv("QZOO_HOME", str(built_home))
    return built_home


@pytest.fixture
def copied(built_home, bundles, home) -> Path:
    """QZOO_HOME: the same, a copy to change."""
    return shutil.copytree(built_home, home)


@pytest.fixture
def qzoo(monkeypatch, capsys) -> Command:
    """`qzoo("list", "--json")` runs the command in this process."""

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["qzoo", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            entry()
        except SystemExit as end:
            code = end.code
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def script() -> Command:
    """`script("list", NAME="value")` runs the installed script, with the environment as it is now and these."""

    def run(*words: object, **environment: str) -> Ended:
        done = subprocess.run(
            [SCRIPT, *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def digits(tmp_path) -> list[Path]:
    """PNGs of ten of scikit-learn's digits, 0 to 9 in order (the first ten have a 5 that looks like a 9)."""
    bunch = load_digits()
    assert bunch.target[10:20].tolist() == list(range(10))
    paths = [tmp_path / f"digit{index}.png" for index in range(10)]
    for path, pixels in zip(paths, bunch.images[10:20], strict=True):
        Image.fromarray(np.rint(pixels * 255 / 16).astype(np.uint8)).save(path)
    return paths
