"""Every network of timm (Wightman 2019, PyTorch Image Models), its placement derived: `timm/<name>`."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.hookspecs import hookimpl
from qzoo.spec import ModelFamily
from qzoo_timm.spec import FAMILY


@hookimpl
def qzoo_models() -> Iterator[ModelFamily]:
    """One family."""
    yield FAMILY
