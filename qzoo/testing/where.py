"""Which line of a plugin to look at. Reads its source text; imports nothing of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from traceback import extract_tb

_WORDS = re.compile(r"'([^']+)'|([\w*]+(?:[.:][\w*]+)+)|\b(\w{3,})\b")


def source_files(root: Path) -> list[Path]:
    """The Python files of a plugin, whose root is a package's folder or a module's file."""
    return [root] if root.is_file() else sorted(root.rglob("*.py"))


def line_of_text(root: Path, text: str) -> str | None:
    """The first `file:line` that holds the text."""
    return line_of_pattern(root, re.escape(text))


def line_of_pattern(root: Path, pattern: str) -> str | None:
    """The first `file:line` that a regular expression matches in."""
    for file in source_files(root):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line):
                return f"{file}:{number}"
    return None


def line_of_object(root: Path, thing: object) -> str | None:
    """Where a class or function of the plugin begins; None if it isn't the plugin's own."""
    if not inspect.isroutine(thing) and not inspect.isclass(thing):
        return None
    try:
        file = Path(inspect.getsourcefile(thing) or "").resolve()
        line = inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return None  # it was made without source
    return f"{file}:{line}" if file in source_files(root) else None


def line_of_error(root: Path, error: BaseException) -> str | None:
    """The innermost line of the plugin that an exception, or one that caused it, passed through."""
    found = None
    while True:
        own = [frame for frame in extract_tb(error.__traceback__) if Path(frame.filename) in source_files(root)]
        found = f"{own[-1].filename}:{own[-1].lineno}" if own else found
        cause = error.__cause__ or error.__context__
        if cause is None:
            return found
        error = cause


def line_of_words(root: Path, message: str) -> str | None:
    """The line that holds, in quotes, the first name of a message that the plugin's text has so."""
    for word in _names(message):
        found = line_of_text(root, f'"{word}"') or line_of_text(root, f"'{word}'")
        if found is not None:
            return found
    return None


def _names(message: str) -> Iterator[str]:
    for match in _WORDS.finditer(message):
        yield next(group for group in match.groups() if group)
