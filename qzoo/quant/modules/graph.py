"""Points inside the graph: operators as modules that a block calls, and their quantized twins.

`out + identity` is no module, so nothing could be put in its place; `self.add(identity, out)` can be swapped.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from qzoo.quant.modules.twin import adopt, check_twin
from qzoo.quant.toolkit import TensorQuantizer


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
        """Make it from an `Add`. Raises SpecError for another kind of module."""
        check_twin(cls, module)
        return cls().train(module.training)

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Both inputs and the result have one shape."""
        return super().forward(self.skip_quantizer(skip), self.branch_quantizer(branch))


class _QuantBoth(nn.Module):
    # mixed in before an operator of two inputs, neither of which is a residual
    def __init__(self) -> None:
        super().__init__()
        self.left_quantizer = TensorQuantizer("input")
        self.right_quantizer = TensorQuantizer("input")

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:  # noqa: ARG003 - it has no weight
        """Make it from the float operator. Raises SpecError for another kind of module."""
        check_twin(cls, module)
        return cls().train(module.training)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """What the float operator makes of both quantized inputs."""
        result: Tensor = super().forward(self.left_quantizer(left), self.right_quantizer(right))
        return result


class Mul(nn.Module):
    """`left * right`: a gate (squeeze-and-excitation, attention masks) as a module, for `QuantMul`."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Two tensors that broadcast against each other, (N, C, H, W) and (N, C, 1, 1) for a channel gate."""
        return left * right


class QuantMul(_QuantBoth, Mul):
    """A multiplication that quantizes both inputs, per tensor, each with its own amax."""


class Matmul(nn.Module):
    """`left @ right`: a product of two activations (attention) as a module, for `QuantMatmul`."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(..., M, K) and (..., K, P) -> (..., M, P)."""
        return left @ right


class QuantMatmul(_QuantBoth, Matmul):
    """A matrix product of two activations that quantizes both, per tensor, each with its own amax."""


class Concat(nn.Module):
    """A concatenation along `dim` as a module, for `QuantConcat`."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *branches: Tensor) -> Tensor:
        """Any number of tensors whose shapes differ along `dim` alone."""
        return torch.cat(branches, self.dim)

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"dim={self.dim}"


class QuantConcat(Concat):
    """A concatenation whose branches are quantized by one quantizer.

    Calibration sees all branches, so all have one amax and one scale, and a runtime concatenates integers without
    converting them.
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__(dim)
        self.input_quantizer = TensorQuantizer("input")

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:  # noqa: ARG003 - it has no weight
        """Make it from a `Concat`. Raises SpecError for another kind of module."""
        return cls(adopt(cls, module).dim).train(module.training)

    def forward(self, *branches: Tensor) -> Tensor:
        """Any number of tensors whose shapes differ along `dim` alone."""
        return super().forward(*(self.input_quantizer(branch) for branch in branches))
