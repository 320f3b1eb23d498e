from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from qzoo.data.digits import Digits

FIRST_HELD_OUT = ["digits/0001", "digits/0005", "digits/0007", "digits/0027", "digits/0030"]


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_360_images_are_held_out_and_the_rest_calibrate(digits: Digits):
    assert len(digits.samples("held-out")) == 360
    assert len(digits.samples("calibration")) == 1437


def test_no_image_is_in_both_splits(digits: Digits):
    held_out = {sample.sha256 for sample in digits.samples("held-out")}
    assert held_out.isdisjoint(sample.sha256 for sample in digits.samples("calibration"))


def test_every_class_is_held_out_in_proportion(digits: Digits):
    sizes = Counter(load_digits().target.tolist())
    held_out = Counter(sample.label for sample in digits.samples("held-out"))
    assert all(abs(held_out[label] - 360 * size / 1797) < 1 for label, size in sizes.items())


def test_the_split_never_changes(digits: Digits):
    ids = [sample.id for sample in digits.samples("held-out")]
    assert ids[:5] == FIRST_HELD_OUT


def test_images_are_scikit_learns_scaled_to_255(digits: Digits):
    images, labels = load_digits(return_X_y=True)
    for sample in (*digits.samples("calibration")[:50], *digits.samples("held-out")[:50]):
        index = int(sample.id.removeprefix("digits/"))
        image = digits.image(sample)
        assert image.mode == "L"
        assert sample.label == labels[index]
        np.testing.assert_allclose(np.asarray(image), images[index].reshape(8, 8) * 255 / 16, atol=0.5)
