"""The seam to pytorch-quantization 2.1.3: the only module that imports it.

`TensorQuantizer` is the toolkit's, with one quantization formula for evaluation, training and export:

    q = clamp(round_half_even(x / s), lo, hi),  y = q * s,  s = amax / hi

hi is 127, lo is -128 for activations and -127 for weights (of b bits: hi = 2^(b-1) - 1). That is ONNX's QuantizeLinear
+ DequantizeLinear with zero point 0 (operator documentation, opset 13); the toolkit's own three paths differ from it
and from each other in range and rounding, and none of them can be exported by torch.onnx with dynamo=True.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from qzoo.errors import CalibrationError


@contextmanager
def _quiet() -> Iterator[None]:
    # the toolkit compiles two functions with torch.jit.script while it is imported, and puts absl's handler in the
    # place of the root logger's own; each quantizer that it makes gives a root logger without handlers one
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


with _quiet():
    from pytorch_quantization.nn import TensorQuantizer as _ToolkitQuantizer
    from pytorch_quantization.tensor_quant import QuantDescriptor

if TYPE_CHECKING:
    from qzoo.spec import Role

QMAX = 127
AMAX_FLOOR = QMAX * 2.0**-100
"""The smallest amax kept. The scale of an all-zero channel must still be finite, positive and normal in float32."""


FAKE_QUANTIZE = "qzoo::FakeQuantize"
"""The operator an exported graph holds for each quantizer, until `qzoo.graph.canonicalize` expands it."""


def fake_quantize(x: Tensor, scale: Tensor, axis: int | None, low: int, high: int) -> Tensor:
    """Fake-quantize float32 `x` to [low, high] by the formula above.

    `scale` is a scalar, or has one value per index of `axis`. No gradient flows through the rounding.
    """
    scale = scale.detach()
    if axis is not None:
        scale = scale.reshape([-1 if i == axis else 1 for i in range(x.dim())])
    return x.detach().div(scale).round_().clamp_(low, high).mul_(scale)


class Collects(Protocol):
    """What a quantizer shows its inputs to while it is calibrated."""

    def collect(self, x: Tensor) -> None:
        """Look at one batch."""


class _StraightThrough(torch.autograd.Function):
    """PyTorch's own fake_quantize_per_tensor_affine, value for value and gradient for gradient.

    On a CPU its kernel takes one value after the other, forward and backward; these operators are vectorized, and take
    a fifth of the time (benchmarks/qat_step.py).
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, step: float, low: int, high: int) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.save_for_backward(inputs)
        ctx.bounds = (low - 0.5) * step, (high + 0.5) * step  # what rounds into the range
        return inputs.mul(1 / step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (inputs,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, inputs, *ctx.bounds), None, None, None


class _Kept(NamedTuple):
    """What a quantizer made of a parameter, and how often that had been written to."""

    parameter: nn.Parameter | None
    version: int
    rounded: Tensor


class TensorQuantizer(_ToolkitQuantizer):  # type: ignore[misc]
    """Quantizes one tensor. `role` says which: input, weight, skip, branch or output; `path` is its module path.

    `axis` None is per tensor. Activations use [-128, 127], weights [-127, 127] (so that a weight can be negated), or
    with `num_bits` below 8 that many bits of it. It passes its input through until an amax was loaded, and while
    `enabled` is off.

    In training mode the gradient goes straight through the rounding, and is zero where the value was clamped (the
    straight-through estimator; Bengio et al. 2013, arXiv:1308.3432). amax is a buffer, so frozen, until `learn_amax`.
    """

    def __init__(self, role: Role, axis: int | None = None) -> None:
        with _quiet():
            super().__init__(QuantDescriptor(num_bits=8, axis=axis, narrow_range=role == "weight"))
        self.role: Role = role
        self.path = ""
        self.log2_amax: nn.Parameter | None = None
        self._calibrator: Collects | None = None
        self._kept: _Kept | None = None

    @property
    def high(self) -> int:
        """The largest integer: 127 for 8 bits."""
        largest: int = 2 ** (self.num_bits - 1) - 1
        return largest

    @property
    def low(self) -> int:
        return -self.high if self.role == "weight" else -self.high - 1

    @property
    def amax(self) -> Tensor | None:
        """The largest magnitude that is represented: a scalar, or one value per index of `axis`; None before any is."""
        return getattr(self, "_amax", None) if self.log2_amax is None else torch.exp2(self.log2_amax)

    @property
    def step(self) -> Tensor:
        """The scale s = amax / hi: a scalar, or one value per index of `axis`. Always finite and > 0."""
        if self.amax is None:
            raise CalibrationError(f"{self.path}: the quantizer was not calibrated")
        return self.amax / self.high

    @property
    def calibrated(self) -> bool:
        return self.amax is not None

    @property
    def collector(self) -> Collects | None:
        """What collects this quantizer's inputs; None outside calibration."""
        return self._calibrator

    def start_collecting(self, collector: Collects) -> None:
        """Pass inputs through unquantized, and show each to `collector`."""
        self._calibrator, self._if_calib, self._if_quant = collector, True, False

    def stop_collecting(self) -> None:
        """Quantize again."""
        self._calibrator, self._if_calib, self._if_quant = None, False, True

    def keep_rounded(self, on: bool) -> None:  # noqa: FBT001 - a switch
        """Round a parameter once and give that result whenever it comes again, in evaluation mode, until it is off."""
        self._kept = _Kept(None, 0, torch.empty(0)) if on else None

    def load_amax(self, amax: Tensor) -> None:
        """Set amax: a scalar, or a vector along `axis`. Raises CalibrationError if one is not finite or negative."""
        amax = amax.detach().to(torch.float32).reshape(() if self.axis is None else (-1,))
        if not bool(torch.isfinite(amax).all()) or bool((amax < 0).any()):
            bad = amax[~torch.isfinite(amax) | (amax < 0)].reshape(-1)[0]
            raise CalibrationError(f"amax is {bad.item()}; an amax must be finite and >= 0")
        self.register_buffer("_amax", amax.clamp_min(AMAX_FLOOR))
        self.keep_rounded(on=self._kept is not None)  # what was kept is of another range

    def learn_amax(self) -> None:
        """Make amax a parameter, as its logarithm: it stays positive, and steps are relative to its size.

        Jain et al. 2019, "Trained quantization thresholds" (arXiv:1903.08066), section 4.
        """
        self.log2_amax = nn.Parameter(torch.log2(self.step * self.high))
        del self._amax

    def freeze_amax(self) -> None:
        """Make a learned amax a buffer again."""
        if self.log2_amax is not None:
            learned = torch.exp2(self.log2_amax)
            self.log2_amax = None
            self.load_amax(learned)

    def _quant_forward(self, inputs: Tensor) -> Tensor:
        if not self.calibrated:
            return inputs
        if torch.onnx.is_in_onnx_export():
            return self._symbolic(inputs)
        if self.training:
            return self._native(inputs) if self.log2_amax is None else self._learning(inputs)
        if self._kept is None or not isinstance(inputs, nn.Parameter):
            return fake_quantize(inputs, self.step, self.axis, self.low, self.high)
        version = inputs._version  # noqa: SLF001 - PyTorch's count of writes has no public name
        if self._kept.parameter is not inputs or self._kept.version != version:
            rounded = fake_quantize(inputs, self.step, self.axis, self.low, self.high)
            self._kept = _Kept(inputs, version, rounded)
        return self._kept.rounded

    def _symbolic(self, inputs: Tensor) -> Tensor:
        # one node per quantizer, with its role and path: the exporter's optimizer merges equal nodes, and of Q/DQ
        # pairs merged there nobody could tell which consumer reads them in which role
        attributes = {
            "axis": -1 if self.axis is None else self.axis,
            "low": self.low,
            "high": self.high,
            "role": self.role,
            "path": self.path,
        }
        symbolic: Tensor = torch.onnx.ops.symbolic(
            FAKE_QUANTIZE, (inputs, self.step), attributes, dtype=inputs.dtype, shape=inputs.shape, version=1
        )
        return symbolic

    def _native(self, inputs: Tensor) -> Tensor:
        # PyTorch's own kernels carry the straight-through estimator
        scale = self.step
        if self.axis is None and inputs.device.type == "cpu":
            quantized: Tensor = _StraightThrough.apply(inputs, scale.item(), self.low, self.high)
            return quantized
        zeros = torch.zeros(scale.shape, dtype=torch.int32, device=scale.device)
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(inputs, scale, zeros, self.low, self.high)
        return torch.fake_quantize_per_channel_affine(inputs, scale, zeros, self.axis, self.low, self.high)

    def _learning(self, inputs: Tensor) -> Tensor:
        # gradient of the scale, and its factor 1 / sqrt(values x hi): Esser et al. 2020, "Learned step size
        # quantization" (arXiv:1902.08153), equations 3 and 5; also straight through to the inputs
        scale = self.step.reshape(-1)
        zeros, factor = torch.zeros_like(scale), (inputs.numel() / scale.numel() * self.high) ** -0.5
        made: Tensor
        if self.axis is None:
            made = torch._fake_quantize_learnable_per_tensor_affine(inputs, scale, zeros, self.low, self.high, factor)  # noqa: SLF001 - as torch.ao.quantization calls it
        else:
            made = torch._fake_quantize_learnable_per_channel_affine(  # noqa: SLF001
                inputs, scale, zeros, self.axis, self.low, self.high, factor
            )
        return made

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        # the toolkit's own calls .cuda() where there is no buffer yet, and warns of each where there is
        amax = state_dict.get(f"{prefix}_amax")
        if amax is not None and "_amax" not in self._buffers:
            self.load_amax(amax)
        super(_ToolkitQuantizer, self)._load_from_state_dict(state_dict, prefix, *args, **kwargs)
