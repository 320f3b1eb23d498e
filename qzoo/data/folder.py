"""A directory of images: one subfolder per class, as in torchvision's ImageFolder, or flat and unlabelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qzoo.data.files import SUFFIXES, file_samples, open_image
from qzoo.data.lazy import LazySamples
from qzoo.data.stratify import split_by_content
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Sample, Split

if TYPE_CHECKING:
    from PIL import Image

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "calibration": ("calibration", "train"),
    "held-out": ("held-out", "val", "test"),
}
"""The first that exists is the split."""


class FolderDataset:
    """The images of a directory; ids are paths relative to it, classes the sorted names of its subfolders.

    With a `train` (or `calibration`) and a `val` (or `test`, `held-out`) subfolder, those are the splits, as they are.
    Otherwise a fifth of the images, in proportion to the classes, is held out by content: the same whatever the files
    are called, and never one copy of an image here and another there.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = root.resolve().name
        splits = _split_folders(root)
        listed = {split: _by_class(folder) for split, folder in splits.items()} if splits else {"all": _by_class(root)}
        names = sorted({name for groups in listed.values() for name in groups if name})
        self.classes = tuple(names) or None
        lists = {split: self._listing(groups) for split, groups in listed.items()}
        self._samples: dict[Split, Sequence[Sample]] = {}
        if splits:
            self._samples = {split: lists[split] for split in splits}
        else:
            self._all = lists["all"]

    def samples(self, split: Split) -> Sequence[Sample]:
        """The samples of a split, by class, then by path. Raises DataUnavailable for a file that can't be read."""
        if not self._samples:
            self._samples = split_by_content(self._all, str(self._root))
        return self._samples[split]

    def image(self, sample: Sample) -> Image.Image:
        """Decode one file. Raises DataUnavailable."""
        return open_image(self._root / sample.id)

    def __getstate__(self) -> dict[str, object]:
        # what a worker process decodes by; the listing, which may be long, stays here
        return {"_root": self._root, "name": self.name, "classes": self.classes}

    def _listing(self, groups: dict[str, list[Path]]) -> LazySamples:
        index = {name: i for i, name in enumerate(self.classes or ())}
        pairs = [(file, index.get(name)) for name in sorted(groups) for file in groups[name]]
        ids = [file.relative_to(self._root).as_posix() for file, _ in pairs]
        return file_samples(ids, [file for file, _ in pairs], [label for _, label in pairs])


def open_folder(root: Path) -> FolderDataset:
    """Open a directory of images. Raises DataUnavailable, naming it, where it is missing, unreadable or empty."""
    try:
        return FolderDataset(root)
    except OSError as error:
        raise DataUnavailable(f"data: {root} can't be read: {error.strerror}; give a directory of images") from error


def _split_folders(root: Path) -> dict[Split, Path] | None:
    """The subfolders that hold the two splits, or None where the directory isn't laid out so."""
    folders = {path.name: path for path in _visible(root) if path.is_dir()}
    found: dict[Split, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        present = [folders[name] for name in names if name in folders]
        if present:
            found[split] = present[0]
    if len(found) == len(SPLIT_FOLDERS):
        return found
    if found and len(folders) == 1:
        (have,) = folders
        other = " or ".join(name for split, names in SPLIT_FOLDERS.items() if split not in found for name in names)
        raise DataUnavailable(f"data: {root} holds {have}/ only; add {other}/ beside it, or give {root / have}")
    return None


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """Image files by class subfolder; under the name "" where there are no such subfolders."""
    groups = {path.name: _images_below(path) for path in _visible(folder) if path.is_dir()}
    groups = {name: files for name, files in groups.items() if files}
    if not groups:
        groups = {"": [path for path in _visible(folder) if _is_image(path)]}
    if not any(groups.values()):
        raise DataUnavailable(f"data: {folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return groups


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in _visible(folder):
        if path.is_dir():
            found += _images_below(path)
        elif _is_image(path):
            found.append(path)
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
