"""Any dataset that timm's create_dataset opens and that can be read in any order."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import lru_cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from PIL import Image

from qzoo.data.lazy import LazySamples
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Sample, Split

LOGGER = logging.getLogger(__name__)
SPLITS: dict[Split, str] = {"calibration": "train", "held-out": "validation"}
"""By timm's names."""


class TimmDataset:
    """`train` calibrates, `validation` is held out. Ids are `<split>/<index>`."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self._root = name, root
        train, held_out = (_classes(_create(name, root, theirs)) for theirs in SPLITS.values())
        if train != held_out:  # timm numbers the classes of each split's folder by itself
            odd = min({*(train or ())} ^ {*(held_out or ())})
            raise DataUnavailable(f"data: timm:{name}: class {odd!r} is in only one of {' and '.join(SPLITS.values())}")
        self.classes = train
        self._samples = {split: _listing(_create(name, root, theirs), theirs) for split, theirs in SPLITS.items()}

    def __getstate__(self) -> dict[str, object]:
        # a worker process opens the dataset itself, rather than being sent it
        return {"name": self.name, "_root": self._root, "classes": self.classes}

    def samples(self, split: Split) -> Sequence[Sample]:
        """The samples of a split, in timm's order."""
        return self._samples[split]

    def image(self, sample: Sample) -> Image.Image:
        """Decode one image. Raises DataUnavailable that names it."""
        theirs, _, index = sample.id.rpartition("/")
        try:
            image, _ = _item(_create(self.name, self._root, theirs), int(index))
            image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataUnavailable(f"{self.name}: {sample.id} can't be read as an image: {error}") from error
        return image


def open_timm(name: str, root: Path) -> TimmDataset:
    """Open a dataset by timm's name for it ("torch/mnist", "hfds/...", "folder"), kept or downloaded below `root`.

    Raises DataUnavailable with timm's own reason.
    """
    try:
        return TimmDataset(name, root)
    except ModuleNotFoundError as error:
        raise DataUnavailable(
            f"data: timm can't open {name!r}: {error.name} is not installed; pip install {error.name}"
        ) from error
    except (AssertionError, RuntimeError, ValueError, ImportError, KeyError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataUnavailable(
            f"data: timm can't open {name!r} below {root}: {reason.rstrip(' ;')}; give the directory as "
            f"timm:{name}@DIRECTORY"
        ) from error


def _listing(dataset: Any, split: str) -> LazySamples:  # noqa: ANN401 - timm's datasets have no common type
    ids = [f"{split}/{index}" for index in range(len(dataset))]
    return LazySamples(ids, _labels(dataset), lambda index: _digest(dataset, index))


@lru_cache(maxsize=4)
def _create(name: str, root: Path, split: str) -> Any:  # noqa: ANN401
    from timm.data import create_dataset  # type: ignore[attr-defined]

    said = StringIO()
    with redirect_stdout(said):  # torchvision's and timm's datasets print; stdout is for results
        dataset = create_dataset(name, root=str(root), split=split, download=name.startswith("torch/"))
    if said.getvalue():
        LOGGER.info("%s: %s", name, said.getvalue().strip())
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ValueError("it can only be read from beginning to end, and samples are chosen at random")
    return dataset


def _item(dataset: Any, index: int) -> tuple[Image.Image, int | None]:  # noqa: ANN401
    if hasattr(dataset, "reader"):  # not through the dataset, which puts a neighbour in the place of a damaged image
        file, label = dataset.reader[index][:2]
        with file:
            return Image.open(BytesIO(file.read())), label
    image, label = dataset[index]
    return image, label


def _digest(dataset: Any, index: int) -> str:  # noqa: ANN401
    if hasattr(dataset, "reader"):
        with dataset.reader[index][0] as file:
            return hashlib.sha256(file.read()).hexdigest()
    image, _ = dataset[index]
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def _labels(dataset: Any) -> list[int | None]:  # noqa: ANN401
    if hasattr(dataset, "targets"):
        return [int(label) for label in dataset.targets]
    if hasattr(getattr(dataset, "reader", None), "samples"):
        return [int(label) for _, label in dataset.reader.samples]
    return [int(dataset[index][1]) for index in range(len(dataset))]


def _classes(dataset: Any) -> tuple[str, ...] | None:  # noqa: ANN401
    if getattr(dataset, "classes", None):
        return tuple(str(name) for name in dataset.classes)
    index = getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    return tuple(sorted(index, key=index.__getitem__)) if index else None
