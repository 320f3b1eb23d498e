"""A new plugin: one folder, an installable package that passes every check."""

from __future__ import annotations

import os
import re
import shutil
from importlib.resources import files
from keyword import iskeyword
from pathlib import Path
from string import Template
from tempfile import mkdtemp

from qzoo.errors import UsageError
from qzoo.testing.libraries import BLANK, described
from qzoo.testing.rendering import words_of

_PLACES = {
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "__init__.py.txt": "$module/__init__.py",
    "spec.py.txt": "$module/spec.py",
    "model.py.txt": "$module/model.py",
    "test_plugin.py.txt": "tests/test_$module.py",
}
"""Each file of the template, and its place in the new folder."""

_OF_A_LIBRARY = ("README.md.txt", "spec.py.txt", "model.py.txt")
"""Those that are others, `library_...`, where the network is a library's."""


def scaffold(name: str, parent: Path, origin: str = BLANK) -> Path:
    """Write `parent/name`, whole or not at all, and return it.

    `name` is the model's; in the package's it has `_` for `-`. `origin` is "blank", for a small network to begin from,
    or a library's network, "torchvision:densenet121" or "timm:regnety_002". Raises UsageError for a name that can't be
    both a model's and a package's, or one that Python has a module of, where the folder is there or `parent` isn't, and
    for an origin that is neither; UnknownName for a network that the library doesn't have.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name) or iskeyword(module):
        raise UsageError(f"plugin name {name!r}: begin with a lowercase letter; lowercase letters, digits, _ and -")
    _refuse_taken(module)
    target = parent.expanduser().resolve() / name
    if not target.parent.is_dir():
        raise UsageError(f"--dir {target.parent}: there is no such folder")
    if os.path.lexists(target):
        raise UsageError(f"{target} is there already; choose another name, or another --dir")
    found = described(origin)
    words, template = {"name": name, "module": module}, files("qzoo.testing") / "template"
    if found is not None:
        words |= words_of(found, module)
    unfinished = Path(mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        for source, place in _PLACES.items():
            file = unfinished / Template(place).substitute(words)
            file.parent.mkdir(exist_ok=True)
            text = template / (f"library_{source}" if found and source in _OF_A_LIBRARY else source)
            file.write_text(Template(text.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
        unfinished.chmod(0o777 & ~_umask())
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _refuse_taken(module: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is not None:
        raise UsageError(f"plugin name {module!r}: Python has a module of that name already; choose another")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
