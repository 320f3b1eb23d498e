"""What counts as a plugin in a folder, and how it is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from qzoo.errors import BrokenPlugin, UsageError
from qzoo.registry import Registry
from qzoo.registry.folders import Found, find_in, folders_in, import_from

POINTS = '[project]\nname = "p"\n[project.entry-points.qzoo]\n'


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    """What plugins put on sys.path ends with the test; module names are each test's own."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_folder_may_hold_modules_packages_and_projects_side_by_side(tmp_path):
    write(tmp_path / "module_in.py")
    write(tmp_path / "package_in" / "__init__.py")
    write(tmp_path / "project-in" / "pyproject.toml", POINTS + 'zeta = "inner"\nalpha = "inner.more:hooks"\n')
    write(tmp_path / "project-in" / "inner.py")
    assert find_in(tmp_path) == [
        Found("module_in", "module_in", tmp_path),
        Found("package_in", "package_in", tmp_path),
        Found("alpha", "inner.more", tmp_path / "project-in"),
        Found("zeta", "inner", tmp_path / "project-in"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "_private.py",
        "not-an-identifier.py",
        "notes.txt",
        "data/table.csv",
        "__pycache__/old.pyc",
        "has-dash/__init__.py",
        "deep/er/module.py",
    ],
)
def test_other_files_are_no_plugins(tmp_path, path):
    write(tmp_path / path)
    write(tmp_path / "plugin_beside.py")
    assert [found.name for found in find_in(tmp_path)] == ["plugin_beside"]


def test_a_project_without_our_entry_points_is_no_plugin_but_its_packages_are(tmp_path):
    write(tmp_path / "pyproject.toml", '[project]\nname = "p"\n[project.entry-points.other]\nx = "y"\n')
    write(tmp_path / "package_of_it" / "__init__.py")
    assert find_in(tmp_path) == [Found("package_of_it", "package_of_it", tmp_path)]


def test_a_projects_sources_are_below_src_where_it_has_one(tmp_path):
    write(tmp_path / "pyproject.toml", POINTS + 'mine = "mine"\n')
    write(tmp_path / "src" / "mine.py")
    assert find_in(tmp_path) == [Found("mine", "mine", tmp_path / "src")]


@pytest.mark.parametrize(
    "text",
    ["project = 3", "[project]\nentry-points = []", "[project.entry-points]\nqzoo = 'm'", POINTS + "mine = 1", "= ="],
)
def test_a_pyproject_that_says_something_else_is_a_usage_error_that_names_it(tmp_path, text):
    write(tmp_path / "pyproject.toml", text)
    with pytest.raises(UsageError, match=rf"--plugin-dir {tmp_path}: its pyproject\.toml can't be read: ") as raised:
        find_in(tmp_path)
    assert raised.value.exit_code == 2


def test_a_pyproject_that_is_not_utf_8_is_a_usage_error(tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(b"# \xff\n")
    with pytest.raises(UsageError, match=r"pyproject\.toml can't be read"):
        find_in(tmp_path)


def test_a_file_is_no_plugin_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        find_in(write(tmp_path / "plugin.py"))


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "zoo" / "plugin_at_home.py")
    assert find_in(Path("~/zoo")) == [Found("plugin_at_home", "plugin_at_home", tmp_path / "zoo")]


@pytest.mark.parametrize(
    ("text", "folders"),
    [("", []), ("/a", ["/a"]), (os.pathsep.join(["/a", "", "b c", ""]), ["/a", "b c"])],
)
def test_the_variable_is_split_as_path_is(text, folders):
    assert list(folders_in(text)) == [Path(folder) for folder in folders]


def test_a_folder_of_the_environment_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        Registry.load(env={"QZOO_PLUGINS": str(tmp_path / "gone")})


def test_a_plugins_folder_comes_last_on_the_path_and_once(tmp_path):
    for name in ("path_one", "path_two"):
        write(tmp_path / f"{name}.py")
    before = [*sys.path]
    for found in find_in(tmp_path):
        import_from(found)
    assert sys.path == [*before, str(tmp_path)]


def test_a_plugins_later_imports_find_its_own_modules(tmp_path):
    write(tmp_path / "lazy_one.py", "def later():\n    import lazy_one_helper\n    return lazy_one_helper.VALUE\n")
    write(tmp_path / "lazy_one_helper.py", "VALUE = 7\n")
    assert import_from(Found("lazy_one", "lazy_one", tmp_path)).later() == 7


def test_a_module_of_an_entry_point_that_is_not_there_is_a_broken_plugin(tmp_path):
    write(tmp_path / "pyproject.toml", POINTS + 'mine = "nowhere_to_be_found"\n')
    (found,) = find_in(tmp_path)
    with pytest.raises(BrokenPlugin, match=r"'nowhere_to_be_found' is imported from nowhere") as raised:
        import_from(found)
    assert raised.value.exit_code == 8


def test_a_module_shadowed_by_another_folders_names_both_places(tmp_path):
    first, second = (write(tmp_path / place / "called_alike.py") for place in ("first", "second"))
    import_from(Found("called_alike", "called_alike", first.parent))
    with pytest.raises(BrokenPlugin, match=rf"imported from {first}, not from {second.parent}; rename it"):
        import_from(Found("called_alike", "called_alike", second.parent))


def test_a_shadowed_plugin_is_left_out_and_others_load(tmp_path):
    spec = (
        "import qzoo\n@qzoo.hookimpl\ndef qzoo_datasets():\n    yield qzoo.DatasetSource('seen', 's', lambda: None)\n"
    )
    write(tmp_path / "string.py")
    write(tmp_path / "not_shadowed.py", spec)
    found = Registry.load([tmp_path], env={})
    assert [problem.plugin for problem in found.problems] == ["string"]
    assert found.dataset("seen").name == "seen"
