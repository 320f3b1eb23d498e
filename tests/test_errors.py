"""The error tree: what the docstring draws is what the code raises, and with which exit code."""

from __future__ import annotations

import re
from importlib import import_module
from pkgutil import walk_packages

import pytest

import qzoo
from qzoo import errors
from qzoo.errors import QzooError, UnknownName

LINE = re.compile(r"^(?P<indent>    (?:│   |    )*)(?:[├└]── )?(?P<name>[A-Z]\w+) +(?P<code>\d)   (?P<says>\S.*)$")


def drawn() -> dict[str, tuple[str | None, int]]:
    """Every class in the docstring's tree with its parent and its exit code."""
    tree: dict[str, tuple[str | None, int]] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = LINE.match(line)
        if found:
            depth = (found.start("name") - 4) // 4
            branch[depth:] = [found["name"]]
            tree[found["name"]] = (branch[depth - 1] if depth else None, int(found["code"]))
    return tree


def defined() -> dict[str, tuple[str | None, int]]:
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, QzooError)]
    return {one.__name__: (None if one is QzooError else one.__base__.__name__, one.exit_code) for one in classes}


def test_the_tree_in_the_docstring_is_the_tree_of_classes_with_their_exit_codes():
    assert drawn() == defined()


def test_no_module_defines_an_error_outside_the_tree():
    elsewhere = {
        f"{module.name}.{name}"
        for module in walk_packages(qzoo.__path__, "qzoo.")
        for name, thing in vars(import_module(module.name)).items()
        if isinstance(thing, type) and issubclass(thing, Exception) and thing.__module__ == module.name
    }
    assert elsewhere == {f"qzoo.errors.{name}" for name in defined()}


def test_exit_codes_are_those_that_the_design_lists_and_a_child_keeps_its_parents():
    tree = defined()
    assert {code for _, code in tree.values()} == {1, 2, 3, 4, 5, 6, 7, 8}
    assert all(tree[parent][1] in {code, 1} for parent, code in tree.values() if parent is not None)


def test_every_error_says_what_it_is_for():
    assert all(getattr(errors, name).__doc__ for name in defined())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet51", "did you mean resnet50 or resnet18 or resnet101?"),
        ("zzz", "known: resnet101, resnet18, resnet50"),
    ],
)
def test_an_unknown_name_offers_the_nearest_ones_else_all(name, words):
    error = UnknownName("model", name, ["resnet50", "resnet18", "resnet101"])
    assert str(error) == f"unknown model {name!r}; {words}"


def test_an_unknown_name_where_nothing_is_known_says_none():
    assert str(UnknownName("dataset", "x", [], "give a directory")) == (
        "unknown dataset 'x'; known: none; give a directory"
    )
