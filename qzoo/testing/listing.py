"""A program: lists a plugin's models, and says which of some modules that imports, and from which line of the plugin.

On stdin a JSON object {module, heavy, path, root}; on stdout's last line [[name, "file:line" or null], ...].
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from traceback import extract_stack
from types import ModuleType


class Watch(MetaPathFinder):
    """Finds no module, but notes who asks for some."""

    def __init__(self, names: Sequence[str], root: str) -> None:
        self._names, self._root = names, root
        self.seen: list[tuple[str, str | None]] = []

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """None: the next finder looks for it."""
        if fullname in self._names:
            own = [f"{one.filename}:{one.lineno}" for one in extract_stack() if one.filename.startswith(self._root)]
            self.seen.append((fullname, own[-1] if own else None))
        return None


def main() -> None:
    """Answer the question on stdin."""
    given = json.load(sys.stdin)
    sys.path.append(given["path"])
    watch = Watch(given["heavy"], given["root"])
    sys.meta_path.insert(0, watch)
    list(import_module(given["module"]).qzoo_models())
    sys.stdout.write("\n" + json.dumps(watch.seen) + "\n")


if __name__ == "__main__":
    main()
