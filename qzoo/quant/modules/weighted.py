"""Modules whose input and weight are quantized: convolutions, transposed convolutions, linear layers.

The input is quantized per tensor; the weight per output channel or per tensor; the bias stays in float, since a runtime
adds it to the 32-bit accumulator. L, H, W, D are spatial sizes; a prime marks those of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional as F

from qzoo.errors import SpecError
from qzoo.quant.modules.twin import adopt
from qzoo.quant.toolkit import TensorQuantizer


class QuantWeighted(nn.Module):
    """Mixed in before a float layer with a `weight`: gives it a quantizer for its input and one for its weight."""

    output_channel_axis: ClassVar[int] = 0
    """The axis of `weight` that counts output channels."""

    input_quantizer: TensorQuantizer
    weight_quantizer: TensorQuantizer

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:
        """Make it from the float layer and share its parameters. `weight_axis` 0: per output channel, None: per tensor.

        Raises SpecError for another `weight_axis` or another kind of module.
        """
        if weight_axis not in (0, None):
            raise SpecError(f"{cls.__name__}: weight_axis is {weight_axis}; use 0 (per output channel) or None")
        quantized = adopt(cls, module)
        axis = None if weight_axis is None else cls.output_channel_axis
        quantized.input_quantizer = TensorQuantizer("input").train(module.training)
        quantized.weight_quantizer = TensorQuantizer("weight", axis).train(module.training)
        return quantized


class QuantLinear(QuantWeighted, nn.Linear):
    """A Linear that quantizes its input and its weight."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's own name
        """(..., C) -> (..., C')."""
        return F.linear(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)


class _QuantConv(QuantWeighted, nn.modules.conv._ConvNd):  # noqa: SLF001 - the common base has no public name
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's own name
        """The convolution of the quantized input and weight, with any of PyTorch's padding modes."""
        return self._conv_forward(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)


class QuantConv1d(_QuantConv, nn.Conv1d):
    """A Conv1d that quantizes its input and its weight: (N, C, L) -> (N, C', L')."""


class QuantConv2d(_QuantConv, nn.Conv2d):
    """A Conv2d that quantizes its input and its weight: (N, C, H, W) -> (N, C', H', W')."""


class QuantConv3d(_QuantConv, nn.Conv3d):
    """A Conv3d that quantizes its input and its weight: (N, C, D, H, W) -> (N, C', D', H', W')."""


class _QuantConvTranspose(QuantWeighted, nn.modules.conv._ConvTransposeNd):  # noqa: SLF001 - as above
    # weights are (in, out / groups, ...): with groups, one scale serves the output channels of that index in each group
    output_channel_axis = 1
    convolve: ClassVar[Callable[..., Tensor]]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002 - PyTorch's own name
        """The transposed convolution of the quantized input and weight; `output_size` as PyTorch's has it."""
        padding = self._output_padding(
            input,
            output_size,
            self.stride,  # type: ignore[arg-type]  # PyTorch annotates lists and passes tuples
            self.padding,  # type: ignore[arg-type]
            self.kernel_size,  # type: ignore[arg-type]
            len(self.kernel_size),
            self.dilation,  # type: ignore[arg-type]
        )
        return self.convolve(
            self.input_quantizer(input),
            self.weight_quantizer(self.weight),
            self.bias,
            self.stride,
            self.padding,
            padding,
            self.groups,
            self.dilation,
        )


class QuantConvTranspose1d(_QuantConvTranspose, nn.ConvTranspose1d):
    """A ConvTranspose1d that quantizes its input and its weight: (N, C, L) -> (N, C', L')."""

    convolve = staticmethod(F.conv_transpose1d)


class QuantConvTranspose2d(_QuantConvTranspose, nn.ConvTranspose2d):
    """A ConvTranspose2d that quantizes its input and its weight: (N, C, H, W) -> (N, C', H', W')."""

    convolve = staticmethod(F.conv_transpose2d)


class QuantConvTranspose3d(_QuantConvTranspose, nn.ConvTranspose3d):
    """A ConvTranspose3d that quantizes its input and its weight: (N, C, D, H, W) -> (N, C', D', H', W')."""

    convolve = staticmethod(F.conv_transpose3d)
