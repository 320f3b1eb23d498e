"""The seam to pytorch-quantization 2.1.3: the only module that imports it.

`TensorQuantizer` is the toolkit's, with one quantization formula for evaluation, training and export:

    q = clamp(round_half_even(x / s), lo, 127),  y = q * s,  s = amax / 127

lo is -128 for activations and -127 for weights. That is ONNX's QuantizeLinear + DequantizeLinear with zero point 0
(operator documentation, opset 13); the toolkit's own three paths differ from it and from each other in range and
rounding, and none of them can be exported by torch.onnx with dynamo=True.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qzoo.errors import CalibrationError
from qzoo.quant.histogram import Collector


@contextmanager
def _quiet_import() -> Iterator[None]:
    # the toolkit compiles two functions with torch.jit.script while it is imported, and puts absl's handler in the
    # place of the root logger's own
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


with _quiet_import():
    from pytorch_quantization.nn import TensorQuantizer as _ToolkitQuantizer
    from pytorch_quantization.tensor_quant import QuantDescriptor

if TYPE_CHECKING:
    from qzoo.spec import Role

QMAX = 127
AMAX_FLOOR = QMAX * 2.0**-100
"""The smallest amax kept. The scale of an all-zero channel must still be finite, positive and normal in float32."""


FAKE_QUANTIZE = "qzoo::FakeQuantize"
"""The operator an exported graph holds for each quantizer, until `qzoo.graph.canonicalize` expands it."""


def fake_quantize(x: Tensor, scale: Tensor, axis: int | None, low: int) -> Tensor:
    """Fake-quantize float32 `x` to [low, 127] by the formula above.

    `scale` is a scalar, or has one value per index of `axis`. No gradient flows through the rounding.
    """
    if axis is not None:
        scale = scale.reshape([-1 if i == axis else 1 for i in range(x.dim())])
    return x.detach().div(scale).round_().clamp_(low, QMAX).mul_(scale)


class TensorQuantizer(_ToolkitQuantizer):  # type: ignore[misc]
    """Quantizes one tensor. `role` says which: input, weight, skip, branch or output; `path` is its module path.

    `axis` None is per tensor. Activations use [-128, 127], weights [-127, 127] (so that a weight can be negated).
    It passes its input through until an amax was loaded, and while `enabled` is off.
    """

    def __init__(self, role: Role, axis: int | None = None) -> None:
        super().__init__(QuantDescriptor(num_bits=8, axis=axis, narrow_range=role == "weight"))
        self.role: Role = role
        self.path = ""
        self._calibrator: Collector | None = None

    @property
    def low(self) -> int:
        return -QMAX if self.role == "weight" else -QMAX - 1

    @property
    def step(self) -> Tensor:
        """The scale s = amax / 127: a scalar, or one value per index of `axis`. Always finite and > 0."""
        amax: Tensor = self._amax
        return amax / QMAX

    @property
    def calibrated(self) -> bool:
        return self.amax is not None

    @property
    def collector(self) -> Collector | None:
        """What collects this quantizer's inputs; None outside calibration."""
        return self._calibrator

    def start_collecting(self, collector: Collector) -> None:
        """Pass inputs through unquantized, and show each to `collector`."""
        self._calibrator, self._if_calib, self._if_quant = collector, True, False

    def stop_collecting(self) -> None:
        """Quantize again."""
        self._calibrator, self._if_calib, self._if_quant = None, False, True

    def load_amax(self, amax: Tensor) -> None:
        """Set amax: a scalar, or a vector along `axis`. Raises CalibrationError if one is not finite or negative."""
        amax = amax.detach().to(torch.float32).reshape(() if self.axis is None else (-1,))
        if not bool(torch.isfinite(amax).all()) or bool((amax < 0).any()):
            bad = amax[~torch.isfinite(amax) | (amax < 0)].reshape(-1)[0]
            raise CalibrationError(f"amax is {bad.item()}; an amax must be finite and >= 0")
        self.register_buffer("_amax", amax.clamp_min(AMAX_FLOOR))

    def _quant_forward(self, inputs: Tensor) -> Tensor:
        if not self.calibrated:
            return inputs
        if torch.onnx.is_in_onnx_export():
            return self._symbolic(inputs)
        if self.training:
            return self._native(inputs)
        return fake_quantize(inputs, self.step, self.axis, self.low)

    def _symbolic(self, inputs: Tensor) -> Tensor:
        # one node per quantizer, with its role and path: the exporter's optimizer merges equal nodes, and of Q/DQ
        # pairs merged there nobody could tell which consumer reads them in which role
        attributes = {
            "axis": -1 if self.axis is None else self.axis,
            "low": self.low,
            "role": self.role,
            "path": self.path,
        }
        symbolic: Tensor = torch.onnx.ops.symbolic(
            FAKE_QUANTIZE, (inputs, self.step), attributes, dtype=inputs.dtype, shape=inputs.shape, version=1
        )
        return symbolic

    def _native(self, inputs: Tensor) -> Tensor:
        # PyTorch's own kernels carry the straight-through estimator and are 1.4x faster than the toolkit's
        zeros = torch.zeros(self.step.shape, dtype=torch.int32)
        if self.axis is None:
            return torch.fake_quantize_per_tensor_affine(inputs, self.step, zeros, self.low, QMAX)
        return torch.fake_quantize_per_channel_affine(inputs, self.step, zeros, self.axis, self.low, QMAX)
