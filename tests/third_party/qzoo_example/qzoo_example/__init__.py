"""A plugin of qzoo's, as somebody else would publish it."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.hookspecs import hookimpl
from qzoo.spec import ModelSpec
from qzoo_example.spec import SPEC


@hookimpl
def qzoo_models() -> Iterator[ModelSpec]:
    """The plugin's one model."""
    yield SPEC
