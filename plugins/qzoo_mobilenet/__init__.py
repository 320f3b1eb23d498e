"""torchvision's MobileNets v2 (Sandler et al. 2018, arXiv:1801.04381) and v3 (Howard et al. 2019, arXiv:1905.02244)."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.hookspecs import hookimpl
from qzoo.spec import ModelSpec
from qzoo_mobilenet.spec import SPECS


@hookimpl
def qzoo_models() -> Iterator[ModelSpec]:
    """The three MobileNets."""
    yield from SPECS
