"""What random changes do to images, measured on bars and squares."""

from __future__ import annotations

import numpy as np
import pytest

from qzoo.errors import UsageError
from qzoo.spec import Training
from qzoo.train.images import augmented

COUNT = 200


def bars(channels: int = 1) -> np.ndarray:
    """A bright bar, 5 high and 29 wide, in the middle of 61x61 dark pixels."""
    pixels = np.full((COUNT, 61, 61, channels), 20, np.uint8)
    pixels[:, 28:33, 16:45] = 200
    return pixels


def moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's orientation in degrees and its bright area, from its grey values."""
    light = (pixels[..., 0].astype(float) - 20) / 180
    y, x = np.mgrid[-30:31, -30:31]
    xx, yy, xy = ((light * weight).sum((1, 2)) for weight in (x * x, y * y, x * y))
    return np.degrees(np.arctan2(2 * xy, xx - yy) / 2), light.sum((1, 2))


def changed(pixels: np.ndarray, seed: int = 0, **training: float) -> np.ndarray:
    return augmented(pixels, Training(**training), np.random.default_rng(seed))


def test_nothing_asked_for_changes_nothing():
    np.testing.assert_array_equal(changed(bars()), bars())


def test_rotations_are_spread_evenly_up_to_the_largest_both_ways():
    angles, areas = moments(changed(bars(), rotate=20))
    assert np.abs(angles).max() <= 20.5
    assert np.histogram(angles, bins=4, range=(-20, 20))[0].min() > COUNT / 8
    np.testing.assert_allclose(areas, 145, rtol=0.03)


def test_sizes_are_spread_evenly_around_the_images_own():
    angles, areas = moments(changed(bars(), zoom=0.2))
    factors = np.sqrt(areas / 145)
    assert 0.78 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.22
    np.testing.assert_allclose(angles, 0, atol=0.5)


def test_edges_are_repeated_and_channels_changed_alike():
    pixels = changed(bars(3), rotate=45, zoom=0.3)
    assert pixels.dtype == np.uint8
    assert pixels.min() == 20
    assert (pixels == pixels[..., :1]).all()


def test_a_seed_decides_all_of_it():
    everything = {"rotate": 10, "zoom": 0.1, "shift": 0.1}
    np.testing.assert_array_equal(changed(bars(), **everything), changed(bars(), **everything))
    assert (changed(bars(), seed=1, **everything) != changed(bars(), **everything)).any()


@pytest.mark.parametrize(
    "bad", [{"rotate": -1}, {"rotate": 181}, {"zoom": 1}, {"zoom": -0.1}, {"rotate": float("nan")}]
)
def test_impossible_rotations_and_sizes_are_refused(bad):
    with pytest.raises(UsageError, match=r"rotate is .* zoom is"):
        Training(**bad)
