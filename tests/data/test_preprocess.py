from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode

from qzoo.data.preprocess import apply, cropped, normalize
from qzoo.spec import Preprocess

IMAGENET = Preprocess(resize=232, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GREY = Preprocess(mode="L", resize=33, crop=28, mean=(0.13,), std=(0.31,), interpolation="bicubic")


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    width, height = size
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels.squeeze())


def with_torchvision(preprocess: Preprocess, image: Image.Image) -> np.ndarray:
    pipeline = v1.Compose(
        [
            v1.Resize(preprocess.resize, InterpolationMode(preprocess.interpolation)),
            v1.CenterCrop(preprocess.crop),
            v1.ToTensor(),
            v1.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    return pipeline(image.convert(preprocess.mode)).numpy()


@pytest.mark.parametrize("preprocess", [IMAGENET, GREY])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("size", [(640, 427), (101, 333), (232, 232), (33, 40), (8, 8), (300, 299)])
def test_result_is_torchvisions(preprocess: Preprocess, mode: str, size: tuple[int, int]):
    image = picture(mode, size)
    result = apply(preprocess, image)
    assert result.dtype == np.float32
    assert result.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(result, with_torchvision(preprocess, image), rtol=0, atol=1e-6)


def test_a_palette_image_is_converted():
    buffer = io.BytesIO()
    picture("RGB", (50, 60)).convert("P").save(buffer, "PNG")
    image = Image.open(buffer)
    assert image.mode == "P"
    np.testing.assert_allclose(apply(IMAGENET, image), with_torchvision(IMAGENET, image), rtol=0, atol=1e-6)


def test_normalizing_a_whole_set_is_normalizing_each_image():
    images = [picture("RGB", size) for size in ((240, 250), (300, 240), (232, 232))]
    together = normalize(IMAGENET, np.stack([cropped(IMAGENET, image) for image in images]))
    np.testing.assert_array_equal(together, [apply(IMAGENET, image) for image in images])
