"""The one preprocessing: what calibrates a network, evaluates it and feeds it afterwards is the same array.

It does what torchvision's classification transforms do (Resize on a PIL image, CenterCrop, ToTensor, Normalize), in PIL
and NumPy, so that running an engine needs no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling

from qzoo.spec import Preprocess

RESAMPLING = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}


def apply(preprocess: Preprocess, image: Image) -> NDArray[np.float32]:
    """An image of any size and mode to a float32 array (C, crop, crop), normalized."""
    return normalize(preprocess, cropped(preprocess, image))


def cropped(preprocess: Preprocess, image: Image) -> NDArray[np.uint8]:
    """An image of any size and mode, converted, resized and cropped: uint8 (crop, crop, C)."""
    image, resampling = image.convert(preprocess.mode), RESAMPLING[preprocess.interpolation]
    if preprocess.squash:
        image = image.resize((preprocess.resize, preprocess.resize), resampling)
    else:
        image = _resize(image, preprocess.resize, resampling)
    image = _centre_crop(image, preprocess.crop)
    return np.asarray(image, dtype=np.uint8).reshape(preprocess.crop, preprocess.crop, -1)


def normalize(preprocess: Preprocess, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels (..., H, W, C) to float32 (..., C, H, W): (pixel / 255 - mean) / std."""
    mean, std = np.array(preprocess.mean, np.float32), np.array(preprocess.std, np.float32)
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))


def _resize(image: Image, shorter: int, resampling: Resampling) -> Image:
    """Make the shorter side `shorter` pixels; the longer one is cut to whole pixels, as torchvision cuts it."""
    width, height = image.size
    size = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    return image if size == image.size else image.resize(size, resampling)


def _centre_crop(image: Image, side: int) -> Image:
    width, height = image.size
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))
