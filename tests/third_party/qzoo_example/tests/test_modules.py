"""What the quantized module computes, against the formula."""

from __future__ import annotations

import torch
from qzoo_example.model import Maximum, QuantMaximum


def test_the_maximum_of_two_rounded_tensors_is_on_their_grid():
    left, right = torch.randn(2, 2, 8, 6, 6, generator=torch.Generator().manual_seed(0)).unbind()
    module = QuantMaximum.from_float(Maximum(), None).eval()
    assert torch.equal(module(left, right), torch.maximum(left, right))  # not calibrated yet
    amax = torch.maximum(left.abs().max(), right.abs().max())
    module.input_quantizer.load_amax(amax)
    step = amax / 127
    expected = (torch.maximum(left, right) / step).round().clamp(-128, 127) * step
    torch.testing.assert_close(module(left, right), expected)
