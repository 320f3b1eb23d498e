"""timm's own networks."""

from __future__ import annotations

import timm
from torch import nn


def build(num_classes: int, *, name: str) -> nn.Module:
    """The network that timm calls `name`, with random weights."""
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return network
