"""The one preprocessing: what calibrates a network, evaluates it and feeds it afterwards is the same array.

It does what torchvision's classification transforms do (Resize on a PIL image, CenterCrop, ToTensor, Normalize), in PIL
and NumPy, so that running an engine needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling

from qzoo.errors import UsageError
from qzoo.hookspecs import Dataset, Sample
from qzoo.spec import Preprocess

RESAMPLING = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}


def apply(preprocess: Preprocess, image: Image) -> NDArray[np.float32]:
    """An image of any size and mode to a float32 array (C, crop, crop), normalized."""
    image = _resize(image.convert(preprocess.mode), preprocess.resize, RESAMPLING[preprocess.interpolation])
    image = _centre_crop(image, preprocess.crop)
    pixels = np.asarray(image, dtype=np.float32).reshape(preprocess.crop, preprocess.crop, -1) / np.float32(255)
    mean, std = np.array(preprocess.mean, np.float32), np.array(preprocess.std, np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))


def batches(
    dataset: Dataset, samples: Sequence[Sample], preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64] | None]]:
    """Arrays (N, C, H, W) of at most `batch_size` samples, in order, with labels (N,) where every sample has one.

    Raises UsageError for batch_size <= 0, DataUnavailable for a sample that can't be read.
    """
    if batch_size <= 0:
        raise UsageError(f"the batch size must be at least 1, got {batch_size}")
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        arrays = np.stack([apply(preprocess, dataset.image(sample)) for sample in part])
        labels = [sample.label for sample in part if sample.label is not None]
        yield arrays, np.array(labels, np.int64) if len(labels) == len(part) else None


def _resize(image: Image, shorter: int, resampling: Resampling) -> Image:
    """Make the shorter side `shorter` pixels; the longer one is cut to whole pixels, as torchvision cuts it."""
    width, height = image.size
    size = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    return image if size == image.size else image.resize(size, resampling)


def _centre_crop(image: Image, side: int) -> Image:
    width, height = image.size
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))
