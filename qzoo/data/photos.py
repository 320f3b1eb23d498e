"""Crops of scikit-learn's two sample photographs, for ImageNet models where no data is given.

They have no label: an accuracy can't be measured on them, only fidelity.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random

from PIL import Image, ImageOps

from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Sample, Split

CROPS = 512
"""Per split, taken from the photographs in turn."""
SMALLEST = 96
"""The shorter side of the smallest crop, in pixels; the largest is as wide as half a photograph."""
ASPECT = 4 / 3


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of a photograph in pixels, mirrored or not."""

    photo: str
    left: int
    top: int
    width: int
    height: int
    mirrored: bool

    @property
    def id(self) -> str:
        """Photograph and rectangle, so that it stays true whatever order the crops are in."""
        return f"photos/{self.photo}/{self.left},{self.top},{self.width}x{self.height}{',mirrored' * self.mirrored}"


class Photos:
    """512 crops per split: left halves calibrate, right halves are held out, and no crop crosses the middle."""

    name = "photos"
    classes = None

    def __init__(self) -> None:
        self._photos = {path.stem: _pixels(path) for path in sorted(_folder().glob("*.jpg"))}
        self._crops: dict[Split, dict[str, Crop]] = {
            "calibration": self._choose("calibration"),
            "held-out": self._choose("held-out"),
        }
        self._samples: dict[Split, tuple[Sample, ...]] = {}

    def samples(self, split: Split) -> tuple[Sample, ...]:
        """The crops of a split, always the same. The digest is that of size and pixels."""
        if split not in self._samples:
            crops = self._crops[split].values()
            self._samples[split] = tuple(Sample(crop.id, _digest(self._cut(crop)), None) for crop in crops)
        return self._samples[split]

    def image(self, sample: Sample) -> Image.Image:
        """The crop, mode RGB."""
        crops = self._crops["calibration"] | self._crops["held-out"]
        return self._cut(crops[sample.id])

    def _choose(self, split: Split) -> dict[str, Crop]:
        # Only `random()` of a string-seeded generator is promised to give the same numbers in every Python.
        draw = Random(f"qzoo photos {split}").random  # noqa: S311 - no secret
        names = sorted(self._photos)
        chosen: dict[str, Crop] = {}
        while len(chosen) < CROPS:
            name = names[len(chosen) % len(names)]
            width, height = self._photos[name].size
            half = width // 2
            short = round(SMALLEST + draw() * (min(half, height) / ASPECT - SMALLEST))
            long = round(short * (1 + draw() * (ASPECT - 1)))
            wide, high = (long, short) if draw() < 0.5 else (short, long)
            left = int(draw() * (half - wide + 1)) + (width - half if split == "held-out" else 0)
            crop = Crop(name, left, int(draw() * (height - high + 1)), wide, high, draw() < 0.5)
            chosen[crop.id] = crop
        return chosen

    def _cut(self, crop: Crop) -> Image.Image:
        box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        image = self._photos[crop.photo].crop(box)
        return ImageOps.mirror(image) if crop.mirrored else image


def _folder() -> Path:
    """Where scikit-learn has its photographs. It isn't imported for them, which takes a second."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise DataUnavailable("photos: scikit-learn, whose photographs they are, isn't installed; reinstall qzoo")
    return Path(found.origin).parent / "datasets" / "images"


def _pixels(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _digest(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()
