"""Images through a PyTorch network, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from qzoo.errors import SpecError
from qzoo.pipeline.images import Images
from qzoo.pipeline.progress import Progress, tracked
from qzoo.quant.modules import weights_rounded_once

FEW = 16
"""Images that BatchNorm statistics of random weights are set from, and that layers are compared on."""
_PIXELS, _SMALLEST, _LARGEST = 8 * 224 * 224, 2, 64
"""What a forward pass takes: ResNet-50's activations of 8 images fit the caches, and it took 15 % less time each than
in passes of 16; of small images it takes more, since calling an operator takes longer than what it computes."""

Outputs = dict[str, NDArray[np.float32]]


def few(read: Images) -> torch.Tensor:
    """The first FEW images, (N, C, H, W) float32."""
    return torch.from_numpy(read.images[:FEW])


def batches_of(images: NDArray[np.float32]) -> tuple[torch.Tensor, ...]:
    """Images (N, C, H, W) in batches that bound a pass's memory, whatever N is."""
    height, width = images.shape[2:]
    size = min(max(_PIXELS // (height * width), _SMALLEST), _LARGEST)
    return torch.split(torch.from_numpy(images), size)


def steps(images: NDArray[np.float32]) -> int:
    """How many batches so many images are."""
    return len(batches_of(images))


def fast_layout(network: nn.Module, images: NDArray[np.float32]) -> torch.memory_format:
    """The layout in which a CPU runs a network's convolutions fastest: channels last, where the network allows it.

    One that views channels as an outer dimension runs in NCHW only. The results differ in rounding. Tried on two of
    `images` (N, C, H, W); the network is left in NCHW.
    """
    with laid_out(network, torch.channels_last), torch.inference_mode():
        try:
            network(torch.from_numpy(images[:2]))
        except RuntimeError:  # where the layout isn't the cause, it comes again
            return torch.contiguous_format
    return torch.channels_last


@contextmanager
def laid_out(network: nn.Module, layout: torch.memory_format) -> Iterator[None]:
    """A network's weights of four axes in a layout, which its activations take on; in NCHW again afterwards."""
    _lay_out(network, layout)
    try:
        yield
    finally:
        _lay_out(network, torch.contiguous_format)


def _lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    # not by network.to(memory_format=...), which refuses a network with a tensor of five axes
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)


def forward(network: nn.Module, images: NDArray[np.float32], names: Sequence[str], progress: Progress) -> Outputs:
    """A network's outputs over all images, by name. Raises SpecError where their number isn't the spec's."""
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode(), weights_rounded_once(network):
        for batch in tracked(batches_of(images), progress):
            result = network(batch)
            parts.append(result if isinstance(result, tuple) else (result,))
    if len(parts[0]) != len(names):
        raise SpecError(f"the spec names {len(names)} outputs ({', '.join(names)}), the network gives {len(parts[0])}")
    return {name: torch.cat([part[i] for part in parts]).numpy() for i, name in enumerate(names)}
