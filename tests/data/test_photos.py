from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import ImageOps
from sklearn.datasets import load_sample_images

from qzoo.data.photos import Photos
from qzoo.hookspecs import Sample, Split

SPLITS: tuple[Split, ...] = ("calibration", "held-out")


@pytest.fixture(scope="module")
def photos() -> Photos:
    return Photos()


def rectangle(sample: Sample) -> tuple[int, int, int, int]:
    found = re.fullmatch(r"photos/\w+/(\d+),(\d+),(\d+)x(\d+)(,mirrored)?", sample.id)
    assert found
    left, top, width, height = map(int, found.groups()[:4])
    return left, top, width, height


def test_calibration_crops_stay_in_the_left_half(photos: Photos):
    for left, top, width, height in map(rectangle, photos.samples("calibration")):
        assert left >= 0
        assert top >= 0
        assert left + width <= 320
        assert top + height <= 427


def test_held_out_crops_stay_in_the_right_half(photos: Photos):
    for left, top, width, height in map(rectangle, photos.samples("held-out")):
        assert left >= 320
        assert top >= 0
        assert left + width <= 640
        assert top + height <= 427


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_512_different_crops_without_labels(photos: Photos, split: Split):
    samples = photos.samples(split)
    assert len(samples) == len({sample.sha256 for sample in samples}) == len({sample.id for sample in samples}) == 512
    assert {sample.label for sample in samples} == {None}


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_both_photographs_mirrored_and_not_large_and_small(photos: Photos, split: Split):
    samples = photos.samples(split)
    china = sum("china" in sample.id for sample in samples)
    mirrored = sum("mirrored" in sample.id for sample in samples)
    widths = [rectangle(sample)[2] for sample in samples]
    assert china == 256
    assert 200 < mirrored < 312
    assert min(widths) < 120
    assert max(widths) > 280


def test_an_image_is_the_rectangle_its_id_says(photos: Photos):
    pixels = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    for sample in photos.samples("held-out")[:20]:
        left, top, width, height = rectangle(sample)
        image = photos.image(sample)
        upright = ImageOps.mirror(image) if "mirrored" in sample.id else image
        expected = pixels[sample.id.split("/")[1]][top : top + height, left : left + width]
        np.testing.assert_array_equal(np.asarray(upright), expected)


def test_another_opening_gives_the_same_samples(photos: Photos):
    assert Photos().samples("calibration") == photos.samples("calibration")


def test_an_image_can_be_had_from_a_fresh_opening(photos: Photos):
    sample = photos.samples("held-out")[0]
    assert Photos().image(sample).tobytes() == photos.image(sample).tobytes()
