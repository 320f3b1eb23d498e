"""Images in a .npy or .npz file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qzoo.data.lazy import LazySamples
from qzoo.data.stratify import split_by_content
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Sample, Split

FORM = "images uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), and if there are any, labels of integers (N,)"


class ArrayDataset:
    """Images uint8 (N, H, W[, 1 or 3]) and integer labels (N,), in an .npz; or images alone, in an .npy.

    An .npz names them `images` and `labels`. A fifth is held out, as of a directory. Ids are `<file>/<index>`.
    """

    classes = None

    def __init__(self, path: Path) -> None:
        self._path, self.name = path, path.stem
        images, labels = self._arrays()
        known: list[int | None] = [None] * len(images) if labels is None else [int(label) for label in labels]
        ids = [f"{self.name}/{index}" for index in range(len(images))]
        self._samples = split_by_content(LazySamples(ids, known, lambda i: _digest(images[i])), str(path))

    def __getstate__(self) -> dict[str, object]:
        # a worker process opens the file itself, rather than being sent it
        return {"_path": self._path, "name": self.name}

    def samples(self, split: Split) -> Sequence[Sample]:
        """The samples of a split, in the file's order."""
        return self._samples[split]

    def image(self, sample: Sample) -> Image.Image:
        """One image, mode L or RGB."""
        pixels = self._arrays()[0][int(sample.id.rpartition("/")[2])]
        return Image.fromarray(pixels.squeeze(-1) if pixels.shape[2:] == (1,) else pixels)

    def _arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.integer] | None]:
        return _load(self._path, self._path.stat().st_mtime_ns)


def open_arrays(path: Path) -> ArrayDataset:
    """Open an .npy or .npz file. Raises DataUnavailable that says what such a file must hold."""
    try:
        return ArrayDataset(path)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise DataUnavailable(f"data: {path} can't be read as arrays: {error}") from error


@lru_cache(maxsize=2)
def _load(path: Path, changed: int) -> tuple[NDArray[np.uint8], NDArray[np.integer] | None]:  # noqa: ARG001 - a key
    if path.suffix == ".npy":
        return _checked(path, np.load(path, mmap_mode="r", allow_pickle=False), None)
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        if "images" not in file:
            raise DataUnavailable(f"data: {path} holds {', '.join(file) or 'nothing'}; it must hold {FORM}")
        return _checked(path, file["images"], file.get("labels"))


def _checked(
    path: Path, images: NDArray[np.generic], labels: NDArray[np.generic] | None
) -> tuple[NDArray[np.uint8], NDArray[np.integer] | None]:
    shape_ok = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    labels_ok = labels is None or (labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer))
    if images.dtype != np.uint8 or not shape_ok or not labels_ok:
        found = f"images {images.dtype} {images.shape}"
        found += "" if labels is None else f", labels {labels.dtype} {labels.shape}"
        raise DataUnavailable(f"data: {path} holds {found}; it must hold {FORM}")
    return images, labels  # type: ignore[return-value]


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
