"""A new plugin is whole, can be installed, and passes every check and its own tests at once."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from qzoo.errors import UsageError
from qzoo.testing.scaffold import scaffold


def test_its_own_tests_run_every_check_and_pass_with_warnings_as_errors(tmp_path):
    project = scaffold("fresh-net", tmp_path)
    words = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-o", "addopts=")
    done = subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 passed, 1 skipped" in done.stdout


def test_it_is_a_package_that_pip_installs_with_its_entry_point(tmp_path):
    project, site = scaffold("wheel-net", tmp_path), tmp_path / "site"
    words = ("--no-index", "--no-build-isolation", "--no-deps", "--target", str(site), str(project))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *words], check=True)
    points = next(site.glob("wheel_net-*.dist-info")) / "entry_points.txt"
    assert "[qzoo]\nwheel-net = wheel_net" in points.read_text()
    assert {path.name for path in (site / "wheel_net").glob("*.py")} == {"__init__.py", "model.py", "spec.py"}


def test_it_writes_exactly_one_folder_and_its_names_fit(tmp_path):
    project = scaffold("my-net", tmp_path)
    assert list(tmp_path.iterdir()) == [project]
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    package = {"my_net/__init__.py", "my_net/model.py", "my_net/spec.py"}
    assert files == {"README.md", "pyproject.toml", "tests/test_my_net.py", *package}
    declared = tomllib.loads((project / "pyproject.toml").read_text())
    assert declared["project"]["entry-points"] == {"qzoo": {"my-net": "my_net"}}
    assert not any("$" in (project / file).read_text() for file in files)


@pytest.mark.parametrize("name", ["", "My", "3net", "a b", "../up", "net-", "class", "a__b"])
def test_a_name_that_is_no_package_and_model_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="plugin name"):
        scaffold(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["torch", "json", "qzoo-resnet"])
def test_a_name_of_a_module_that_python_has_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="has a module of that name"):
        scaffold(name, tmp_path)


def test_nothing_that_is_there_is_overwritten(tmp_path):
    project = scaffold("mynet", tmp_path)
    (project / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        scaffold("mynet", tmp_path)
    assert (project / "README.md").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [project]


def test_a_parent_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        scaffold("mynet", tmp_path / "none")
