"""A quantized module of this plugin's own, made of the parts that qzoo.quant.modules offers."""

from __future__ import annotations

from torch import nn

from qzoo.quant.modules import QuantInput


class QuantSigmoid(QuantInput, nn.Sigmoid):
    """A Sigmoid that quantizes its input."""
