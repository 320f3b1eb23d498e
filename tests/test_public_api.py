"""What `import qzoo` promises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import qzoo

PUBLIC = [
    "Backend",
    "BatchProfile",
    "Bundle",
    "Dataset",
    "DatasetSource",
    "Fusion",
    "InputSpec",
    "ModelFamily",
    "ModelSpec",
    "Preprocess",
    "QuantSwap",
    "QzooError",
    "Recipe",
    "Sample",
    "Tolerances",
    "Training",
    "WeightSource",
    "build",
    "hookimpl",
    "load",
]


def test_the_public_names_are_these_and_no_others():
    assert list(qzoo.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves_and_is_documented(name):
    thing = getattr(qzoo, name)
    assert name == "hookimpl" or thing.__doc__


def test_dir_lists_the_public_names():
    assert dir(qzoo) == PUBLIC


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'qzoo' has no attribute 'biuld'"):
        qzoo.biuld  # noqa: B018


def test_type_checkers_see_every_public_name_where_it_is_loaded_from():
    tree = ast.parse(Path(qzoo.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        (alias.asname, f"qzoo.{qzoo._PUBLIC[alias.name]}") == (alias.name, node.module) and alias.name
        for node in block.body
        for alias in node.names
    }
    assert seen == set(PUBLIC)
