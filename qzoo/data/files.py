"""Image files: which they are, how one is opened, and samples over many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from qzoo.data.lazy import LazySamples
from qzoo.errors import DataUnavailable
from qzoo.records import file_digest

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


def file_samples(ids: Sequence[str], files: Sequence[Path], labels: Sequence[int | None]) -> LazySamples:
    """Samples over files; each raises DataUnavailable, naming its file, if that can't be read."""

    def digest(index: int) -> str:
        try:
            return file_digest(files[index])
        except OSError as error:
            raise DataUnavailable(f"{files[index]} can't be read: {error.strerror}; fix or remove it") from error

    return LazySamples(ids, labels, digest)


def open_image(path: Path) -> Image.Image:
    """Read and decode an image file. Raises DataUnavailable that names it."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise DataUnavailable(f"{path}: there is no such image file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataUnavailable(f"{path} can't be read as an image: {error}; fix or remove it") from error
