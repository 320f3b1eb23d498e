"""docs/troubleshooting.md lists every kind of error by a message that qzoo really gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qzoo import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
VALUE = "\0"
"""Stands in a message for what is filled in."""


@dataclass(frozen=True)
class Row:
    symptom: str
    kind: str
    code: int | None


def rows() -> Iterator[Row]:
    """What the page's tables list, each with the exit code of its section."""
    code = None
    for line in PAGE.splitlines():
        if line.startswith("## "):
            found = re.match(r"## Exit (\d)", line)
            code = int(found[1]) if found else None
        elif row := re.match(r"\| `([^`]+)` \| (?:`(\w+)`|[^|]*) \| [^|]+ \|$", line):
            yield Row(row[1], row[2] or "", code)


def words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def messages() -> dict[str, list[str]]:
    """What each kind of error is made with in qzoo's source; under "", all strings."""
    found: dict[str, list[str]] = {name: [] for name in (*KINDS, "")}
    for file in sorted((ROOT / "qzoo").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found[""] += words(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                found[node.func.id] += words(node)
            elif isinstance(node, ast.ClassDef) and file.name == "errors.py":
                found[node.name] += [text for stated in node.body[1:] for text in words(stated)]
    return found


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.symptom)
def test_each_symptom_is_a_message_of_its_kind(row, messages):
    pattern = ".*".join(map(re.escape, row.symptom.split("...")))
    assert any(re.search(pattern, message, re.DOTALL) for message in messages[row.kind])


def test_every_kind_of_error_that_is_raised_is_listed(messages):
    raised = {name for name in KINDS if messages[name]}
    assert raised - {row.kind for row in rows()} == set()


def test_each_kind_stands_under_its_exit_code():
    assert [row for row in rows() if row.kind and KINDS[row.kind].exit_code != row.code] == []


def test_no_row_of_a_table_is_passed_over():
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what you see")]
    assert len(lines) == len(list(rows()))
