"""scikit-learn's digits: handwritten digits of the UCI repository (Alpaydin and Kaynak 1998), 8x8 grey pixels."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from qzoo.data.stratify import held_out_digests
from qzoo.hookspecs import Sample, Split

HELD_OUT = 360
SEED = 0
"""Of the split (`qzoo.data.stratify.held_out_digests`). Changing it makes every published digits accuracy void."""


class Digits:
    """1,797 images in 10 classes; a fixed stratified 360 are held out. Images are 8x8, mode L, ids `digits/0123`."""

    name = "digits"
    classes = tuple("0123456789")

    def __init__(self) -> None:
        bunch = load_digits()
        # The pixels are counts from 0 to 16, stored as float64.
        self._pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        samples = tuple(
            Sample(f"digits/{index:04d}", hashlib.sha256(pixels.tobytes()).hexdigest(), int(label))
            for index, (pixels, label) in enumerate(zip(self._pixels, bunch.target, strict=True))
        )
        held_out = held_out_digests(samples, HELD_OUT, SEED)
        self._samples: dict[Split, tuple[Sample, ...]] = {
            "calibration": tuple(sample for sample in samples if sample.sha256 not in held_out),
            "held-out": tuple(sample for sample in samples if sample.sha256 in held_out),
        }

    def samples(self, split: Split) -> tuple[Sample, ...]:
        """1,437 to calibrate and train on, 360 held out, each by id."""
        return self._samples[split]

    def image(self, sample: Sample) -> Image.Image:
        """The 8x8 image, mode L, 0 to 255."""
        return Image.fromarray(self._pixels[int(sample.id.removeprefix("digits/"))])
