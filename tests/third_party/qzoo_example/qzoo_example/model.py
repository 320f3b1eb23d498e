"""Maxout (Goodfellow et al. 2013, arXiv:1302.4389), and its quantized maximum."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from qzoo.quant.modules import check_twin
from qzoo.quant.toolkit import TensorQuantizer


class Maximum(nn.Module):
    """The larger of two values: two tensors of one shape -> a tensor of that shape."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Element by element."""
        return torch.maximum(left, right)


class QuantMaximum(Maximum):
    """A Maximum that quantizes both inputs with one amax."""

    def __init__(self) -> None:
        super().__init__()
        self.input_quantizer = TensorQuantizer("input")

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:
        """Make it from a `Maximum`. Raises SpecError for another kind of module."""
        check_twin(cls, module)
        return cls().train(module.training)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """The larger of two integers of one grid."""
        return super().forward(self.input_quantizer(left), self.input_quantizer(right))


class Maxout(nn.Module):
    """Two convolutions of an image, the larger of them, and a linear head: (N, 3, H, W) float32 -> (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.left_conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.left_bn = nn.BatchNorm2d(8)
        self.right_conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.right_bn = nn.BatchNorm2d(8)
        self.maximum = Maximum()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images to logits."""
        left, right = self.left_bn(self.left_conv(x)), self.right_bn(self.right_conv(x))
        logits: Tensor = self.head(self.flatten(self.pool(self.maximum(left, right))))
        return logits
