"""Modules whose input is quantized, per tensor: the poolings.

A pooling has no weight, and a runtime pools on INT8 where its input comes from a quantizer. `QuantInput` does that for
any module of one input; each class below is it and a pooling of PyTorch. L, H, W, D are spatial sizes; a prime marks
those of the output.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from qzoo.errors import SpecError
from qzoo.quant.modules.twin import adopt
from qzoo.quant.toolkit import TensorQuantizer


class QuantInput(nn.Module):
    """Mixed in before a float module that takes one tensor: quantizes that tensor, per tensor."""

    input_quantizer: TensorQuantizer

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:  # noqa: ARG003 - it has no weight
        """Make it from the float module. Raises SpecError for another kind of module."""
        quantized = adopt(cls, module)
        quantized.input_quantizer = TensorQuantizer("input").train(module.training)
        return quantized

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that PyTorch's modules have for it
        """What the float module makes of the quantized input."""
        result: Tensor = super().forward(self.input_quantizer(input))
        return result


class _QuantMaximum(QuantInput):
    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:
        """Make it from the float pooling. Raises SpecError if that returns indices, or is another kind of module."""
        quantized = super().from_float(module, weight_axis)
        if quantized.return_indices:
            raise SpecError(
                f"{cls.__name__}: a pooling with return_indices=True can't be quantized, since rounding makes several "
                "values the maximum; name it in keep_float, or pool without indices"
            )
        return quantized


class QuantMaxPool1d(_QuantMaximum, nn.MaxPool1d):
    """A MaxPool1d that quantizes its input: (N, C, L) -> (N, C, L')."""


class QuantMaxPool2d(_QuantMaximum, nn.MaxPool2d):
    """A MaxPool2d that quantizes its input: (N, C, H, W) -> (N, C, H', W')."""


class QuantMaxPool3d(_QuantMaximum, nn.MaxPool3d):
    """A MaxPool3d that quantizes its input: (N, C, D, H, W) -> (N, C, D', H', W')."""


class QuantAdaptiveMaxPool1d(_QuantMaximum, nn.AdaptiveMaxPool1d):
    """An AdaptiveMaxPool1d that quantizes its input: (N, C, L) -> (N, C, output_size)."""


class QuantAdaptiveMaxPool2d(_QuantMaximum, nn.AdaptiveMaxPool2d):
    """An AdaptiveMaxPool2d that quantizes its input: (N, C, H, W) -> (N, C, *output_size)."""


class QuantAdaptiveMaxPool3d(_QuantMaximum, nn.AdaptiveMaxPool3d):
    """An AdaptiveMaxPool3d that quantizes its input: (N, C, D, H, W) -> (N, C, *output_size)."""


class QuantAvgPool1d(QuantInput, nn.AvgPool1d):
    """An AvgPool1d that quantizes its input: (N, C, L) -> (N, C, L')."""


class QuantAvgPool2d(QuantInput, nn.AvgPool2d):
    """An AvgPool2d that quantizes its input: (N, C, H, W) -> (N, C, H', W')."""


class QuantAvgPool3d(QuantInput, nn.AvgPool3d):
    """An AvgPool3d that quantizes its input: (N, C, D, H, W) -> (N, C, D', H', W')."""


class QuantAdaptiveAvgPool1d(QuantInput, nn.AdaptiveAvgPool1d):
    """An AdaptiveAvgPool1d that quantizes its input: (N, C, L) -> (N, C, output_size)."""


class QuantAdaptiveAvgPool2d(QuantInput, nn.AdaptiveAvgPool2d):
    """An AdaptiveAvgPool2d that quantizes its input: (N, C, H, W) -> (N, C, *output_size)."""


class QuantAdaptiveAvgPool3d(QuantInput, nn.AdaptiveAvgPool3d):
    """An AdaptiveAvgPool3d that quantizes its input: (N, C, D, H, W) -> (N, C, *output_size)."""
