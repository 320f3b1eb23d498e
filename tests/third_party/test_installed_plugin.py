"""A plugin that somebody else publishes: pip installs it, qzoo finds, checks and builds it, and pip removes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_paths

import pytest

PROJECT = Path(__file__).with_name("qzoo_example")


@dataclass(frozen=True)
class Venv:
    """A virtual environment that sees what is installed beside qzoo, and a store of its own."""

    folder: Path
    home: Path

    def python(self, *words: str, cwd: Path | None = None) -> str:
        """What `python words...` prints. An error shows all of it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QZOO_")}
        environment |= {"QZOO_HOME": str(self.home), "PYTHONWARNINGS": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        command = [str(self.folder / "bin" / "python"), *words]
        done = subprocess.run(
            command, cwd=cwd or self.home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def qzoo(self, *words: str) -> dict:
        """What `qzoo words... --json` prints."""
        return json.loads(self.python("-m", "qzoo", *words, "--json"))

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python3.*/site-packages"))


def make_venv(folder: Path) -> Venv:
    """One without a second torch: what this Python has is found through a .pth file.

    `addsitedir` also reads the .pth files there, through which a qzoo that is installed as editable is found; pip and
    hatchling, which installs and builds the plugin, come the same way.
    """
    made = Venv(folder / "venv", folder / "home")
    venv.create(made.folder, symlinks=True)
    made.home.mkdir()
    places = sorted({get_paths()["purelib"], get_paths()["platlib"]})
    lines = [f"import site; site.addsitedir({place!r})" for place in places]
    (made.site / "parent.pth").write_text("\n".join(lines) + "\n")
    return made


def install(made: Venv) -> Venv:
    """Install the example from a copy of its sources, as building leaves files behind."""
    source = shutil.copytree(PROJECT, made.home / "source")
    made.python("-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation", str(source))
    shutil.rmtree(source / "qzoo_example")  # from here on only the installed one can be found
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install(make_venv(tmp_path_factory.mktemp("third-party")))


def models_of(made: Venv) -> dict[str, dict]:
    return {one["name"]: one["provenance"] for one in made.qzoo("list")["models"]}


def test_it_is_discovered_through_its_entry_point(installed):
    provenance = models_of(installed)["maxout"]
    assert (provenance["plugin"], provenance["distribution"], provenance["version"]) == (
        "example",
        "qzoo-example",
        "1.0.0",
    )
    assert Path(provenance["origin"]) == installed.site / "qzoo_example" / "__init__.py"


def test_its_own_tests_pass_where_it_is_installed(installed):
    words = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-o", "addopts=")
    assert "14 passed, 1 skipped" in installed.python(*words, cwd=installed.home / "source")


def test_every_check_of_it_passes(installed):
    report = installed.qzoo("plugin", "check", "example")
    assert (report["score"], [one["model"] for one in report["models"]]) == (1.0, ["maxout"])


def test_it_is_built_into_an_engine_that_was_verified(installed):
    options = ("--int8", "--weights", "random", "--target", "onnxruntime", "--calib-samples", "8")
    made = installed.qzoo("build", "maxout", *options)
    assert made["verified"] == "passed"
    assert Path(made["engine"]).is_relative_to(installed.home)


def test_once_it_is_removed_nothing_of_it_is_left(tmp_path):
    made = make_venv(tmp_path)
    before = made.qzoo("list")
    install(made)
    assert models_of(made).keys() - {one["name"] for one in before["models"]} == {"maxout"}
    made.python("-m", "pip", "uninstall", "-q", "-y", "qzoo-example")
    assert made.qzoo("list") == before
