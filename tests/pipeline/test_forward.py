"""Images through a network in the layout that its convolutions are fastest in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qzoo.errors import SpecError
from qzoo.pipeline.forward import batches_of, fast_layout, forward, laid_out, steps
from qzoo.pipeline.progress import Silent

IMAGES = np.random.default_rng(0).normal(size=(37, 3, 8, 8)).astype(np.float32)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class Viewing(Pooled):
    """Views the channels as the outer dimension of what follows them, which other layouts than NCHW don't allow."""

    def forward(self, x):
        return self.conv(x).view(len(x), -1)


@pytest.fixture(params=[Pooled, Viewing])
def network(request) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return request.param().eval()


def as_it_is(network: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(IMAGES)).numpy()


def test_in_the_fast_layout_the_outputs_are_those_of_the_network_as_it_is(network):
    expected = as_it_is(network)
    with laid_out(network, fast_layout(network, IMAGES)):
        once, again = (forward(network, IMAGES, ("y",), Silent())["y"] for _ in range(2))
    assert np.allclose(once, expected, rtol=1e-5, atol=1e-6)
    assert once.tobytes() == again.tobytes()


def test_channels_come_last_where_the_network_allows_it(network):
    allowed = type(network) is Pooled
    assert fast_layout(network, IMAGES) == (torch.channels_last if allowed else torch.contiguous_format)


def test_the_layout_is_nchw_again_afterwards_also_when_it_fails(network):
    expected = as_it_is(network)
    with pytest.raises(RuntimeError, match="channels"), laid_out(network, torch.channels_last):
        network(torch.from_numpy(IMAGES[:, :2]))
    assert network.conv.weight.is_contiguous()
    assert as_it_is(network).tobytes() == expected.tobytes()


def test_an_error_of_the_network_itself_is_its_own(network):
    layout = fast_layout(network, IMAGES[:, :2])
    with pytest.raises(RuntimeError, match="channels"), laid_out(network, layout):
        forward(network, IMAGES[:, :2], ("y",), Silent())


def test_outputs_that_the_spec_does_not_name_are_refused(network):
    with pytest.raises(SpecError, match="names 2 outputs"):
        forward(network, IMAGES, ("y", "z"), Silent())


def test_a_network_with_a_tensor_of_five_axes_is_laid_out_too(network):
    volume = torch.arange(24.0).reshape(1, 2, 3, 2, 2)
    network.register_buffer("volume", volume.clone())
    with laid_out(network, torch.channels_last):
        assert network.conv.weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(network.volume, volume)


@pytest.mark.parametrize(("side", "size"), [(8, 64), (112, 32), (224, 8), (299, 4), (1024, 2)])
def test_a_pass_takes_more_images_the_smaller_they_are(side, size):
    images = np.zeros((67, 1, side, side), np.float32)
    batches = batches_of(images)
    assert {len(batch) for batch in batches[:-1]} == {size}
    assert sum(map(len, batches)) == 67
    assert steps(images) == len(batches)
