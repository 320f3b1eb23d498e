"""Where a result that is kept was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version

from qzoo.backends.cpu import cpu_name


def machine(command: Iterable[str], packages: Iterable[str]) -> dict[str, object]:
    """The command that measured, the versions of Python and of `packages`, the CPU, and how many threads it has."""
    return {
        "command": " ".join(command),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "cpu": cpu_name(),
        "threads": os.cpu_count(),
    }
