"""Quantized modules, and the float twins a network calls where PyTorch has only an operator.

Three kinds, each an example for plugin authors:

- the input is quantized (`pooling`): max, average, adaptive average and adaptive max pooling in 1, 2 and 3 dimensions;
- input and weight are quantized (`weighted`): convolutions, transposed convolutions, `QuantLinear`;
- a point inside the graph is quantized (`graph`): `QuantAdd`, `QuantMul`, `QuantConcat`, `QuantMatmul`, which take the
  place of `Add`, `Mul`, `Concat` and `Matmul` that a block calls.

`attention` is made of all three: PyTorch's multi-head attention.

Each is made from its float twin by `from_float(module, weight_axis)`, whose parameters it shares and whose state dict
it has until it is calibrated. `weight_axis` 0 quantizes weights per output channel, None per tensor. Every quantizer
computes q = clamp(round(x / s), lo, 127), y = q s, s = amax / 127, with lo = -128 for activations and -127 for
weights, and has the straight-through gradient: 1 where q was not clamped, else 0.
"""

from __future__ import annotations

from qzoo.quant.modules.attention import QuantMultiheadAttention, extra_keys
from qzoo.quant.modules.graph import (
    Add,
    Concat,
    Matmul,
    Mul,
    QuantAdd,
    QuantConcat,
    QuantMatmul,
    QuantMul,
)
from qzoo.quant.modules.pooling import (
    QuantAdaptiveAvgPool1d,
    QuantAdaptiveAvgPool2d,
    QuantAdaptiveAvgPool3d,
    QuantAdaptiveMaxPool1d,
    QuantAdaptiveMaxPool2d,
    QuantAdaptiveMaxPool3d,
    QuantAvgPool1d,
    QuantAvgPool2d,
    QuantAvgPool3d,
    QuantInput,
    QuantMaxPool1d,
    QuantMaxPool2d,
    QuantMaxPool3d,
)
from qzoo.quant.modules.twin import adopt, check_twin, quantizers, weight_of, weights_rounded_once
from qzoo.quant.modules.weighted import (
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
    QuantLinear,
    QuantWeighted,
)

__all__ = [
    "Add",
    "Concat",
    "Matmul",
    "Mul",
    "QuantAdaptiveAvgPool1d",
    "QuantAdaptiveAvgPool2d",
    "QuantAdaptiveAvgPool3d",
    "QuantAdaptiveMaxPool1d",
    "QuantAdaptiveMaxPool2d",
    "QuantAdaptiveMaxPool3d",
    "QuantAdd",
    "QuantAvgPool1d",
    "QuantAvgPool2d",
    "QuantAvgPool3d",
    "QuantConcat",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConv3d",
    "QuantConvTranspose1d",
    "QuantConvTranspose2d",
    "QuantConvTranspose3d",
    "QuantInput",
    "QuantLinear",
    "QuantMatmul",
    "QuantMaxPool1d",
    "QuantMaxPool2d",
    "QuantMaxPool3d",
    "QuantMul",
    "QuantMultiheadAttention",
    "QuantWeighted",
    "adopt",
    "check_twin",
    "extra_keys",
    "quantizers",
    "weight_of",
    "weights_rounded_once",
]
