"""Plugins that are not installed: what lies in a folder, and how it is imported."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import msgspec

from qzoo.errors import BrokenPlugin, UsageError
from qzoo.hookspecs import GROUP


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin in a folder: its name, its module, and the directory that must be on sys.path to import it."""

    name: str
    module: str
    root: Path


class _ProjectTable(msgspec.Struct, rename="kebab", frozen=True):
    entry_points: dict[str, dict[str, str]] = {}


class _PyProject(msgspec.Struct, frozen=True):
    project: _ProjectTable = _ProjectTable()


def find_in(folder: Path) -> list[Found]:
    """The plugins of a folder, by name.

    The folder is a project (its pyproject.toml has entry points of the group `qzoo`), or a package itself, or holds
    any number of projects, packages and single-file modules. Raises UsageError if it isn't there or holds none.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(f"--plugin-dir {folder}: there is no such folder")
    found = _plugins_of(folder) or [
        found for child in sorted(folder.iterdir()) for found in (_plugins_of(child) or _module(child))
    ]
    if not found:
        raise UsageError(
            f"--plugin-dir {folder}: no plugin in it; expected a package, a module, or a pyproject.toml with "
            f"[project.entry-points.{GROUP}]"
        )
    return found


def import_from(found: Found) -> ModuleType:
    """Import a found plugin; its directory goes to the end of sys.path and stays there, as its lazy imports need it.

    Raises BrokenPlugin where another module of that name comes first, and whatever the plugin itself raises.
    """
    root = str(found.root)
    if root not in sys.path:
        sys.path.append(root)
    spec = find_spec(found.module)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None or not origin.is_relative_to(found.root):
        raise BrokenPlugin(
            f"module {found.module!r} is imported from {origin or 'nowhere'}, not from {found.root}; rename it"
        )
    return import_module(found.module)


def folders_in(variable: str) -> Iterator[Path]:
    """The folders of QZOO_PLUGINS: separated as in PATH."""
    return (Path(part) for part in variable.split(os.pathsep) if part)


def _plugins_of(folder: Path) -> list[Found]:
    if (folder / "pyproject.toml").is_file():
        return _project(folder)
    if (folder / "__init__.py").is_file() and folder.name.isidentifier():
        return [Found(folder.name, folder.name, folder.parent)]
    return []


def _project(folder: Path) -> list[Found]:
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8")
        declared = msgspec.convert(tomllib.loads(text), _PyProject)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"--plugin-dir {folder}: its pyproject.toml can't be read: {error}") from error
    points = declared.project.entry_points.get(GROUP, {})
    root = folder / "src" if (folder / "src").is_dir() else folder
    return [Found(name, module.partition(":")[0], root) for name, module in sorted(points.items())]


def _module(file: Path) -> list[Found]:
    if file.suffix == ".py" and file.stem.isidentifier() and not file.stem.startswith("_"):
        return [Found(file.stem, file.stem, file.parent)]
    return []
