"""ResNets (He et al. 2015, arXiv:1512.03385): torchvision's five for ImageNet, and resnet20 for 32x32 images."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.hookspecs import hookimpl
from qzoo.spec import ModelSpec
from qzoo_resnet.spec import SPECS


@hookimpl
def qzoo_models() -> Iterator[ModelSpec]:
    """The six ResNets."""
    yield from SPECS
