"""Quantized modules, and the float twins a network calls where PyTorch has only an operator.

Three kinds, each an example for plugin authors:

- the input is quantized: `QuantAdaptiveAvgPool2d`;
- input and weight are quantized: `QuantConv2d`, `QuantLinear`;
- a point inside the graph is quantized: `QuantAdd`, the residual add, with a quantizer on each of its inputs.

`from_float(module, weight_axis)` makes each from its float twin and shares its parameters. `weight_axis` 0 quantizes
weights per output channel, None per tensor.
"""

from __future__ import annotations

from copy import copy
from typing import Self, TypeVar

from torch import Tensor, nn

from qzoo.quant.toolkit import TensorQuantizer

M = TypeVar("M", bound=nn.Module)


class Add(nn.Module):
    """`skip + branch`: a residual add as a module, so that it can be replaced by `QuantAdd`."""

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Both inputs and the result have one shape."""
        return skip + branch


class QuantAdd(Add):
    """A residual add that quantizes both inputs, per tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.skip_quantizer = TensorQuantizer("skip")
        self.branch_quantizer = TensorQuantizer("branch")

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:  # noqa: ARG003 - it has no weight
        """Make it from an `Add`."""
        return cls().train(module.training)

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Both inputs and the result have one shape."""
        return super().forward(self.skip_quantizer(skip), self.branch_quantizer(branch))


def _adopt(cls: type[M], module: nn.Module) -> M:
    """An instance of `cls` with the settings, parameters and buffers of `module`, an instance of a base of `cls`."""
    adopted = cls.__new__(cls)
    adopted.__dict__ = {key: copy(value) if isinstance(value, dict) else value for key, value in vars(module).items()}
    return adopted


class _QuantWeighted(nn.Module):
    """Mixed into a convolution or linear layer: quantizes its input per tensor and its weight."""

    input_quantizer: TensorQuantizer
    weight_quantizer: TensorQuantizer

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:
        """Make it from the float layer and share its parameters."""
        quantized = _adopt(cls, module)
        quantized.input_quantizer = TensorQuantizer("input").train(module.training)
        quantized.weight_quantizer = TensorQuantizer("weight", weight_axis).train(module.training)
        return quantized


class QuantConv2d(_QuantWeighted, nn.Conv2d):
    """A Conv2d that quantizes its input and its weight."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Conv2d's own name
        """(N, C, H, W) -> (N, C', H', W')."""
        result: Tensor = self._conv_forward(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)
        return result


class QuantLinear(_QuantWeighted, nn.Linear):
    """A Linear that quantizes its input and its weight."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's own name
        """(..., C) -> (..., C')."""
        return nn.functional.linear(self.input_quantizer(input), self.weight_quantizer(self.weight), self.bias)


class QuantAdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """An AdaptiveAvgPool2d that quantizes its input."""

    input_quantizer: TensorQuantizer

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:  # noqa: ARG003 - it has no weight
        """Make it from an `nn.AdaptiveAvgPool2d`."""
        quantized = _adopt(cls, module)
        quantized.input_quantizer = TensorQuantizer("input").train(module.training)
        return quantized

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.AdaptiveAvgPool2d's own name
        """(N, C, H, W) -> (N, C, *output_size)."""
        return super().forward(self.input_quantizer(input))


def quantizers(model: nn.Module) -> dict[str, TensorQuantizer]:
    """Every quantizer of a network by its module path, in the network's order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, TensorQuantizer)}


def weight_of(model: nn.Module, path: str) -> Tensor:
    """The weight that the weight quantizer at `path` quantizes."""
    owner = model.get_submodule(path.rpartition(".")[0])
    weight = owner.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{path}: {type(owner).__name__} has a weight quantizer but no weight tensor")
    return weight
