"""A CSV file that lists images: a column `path`, and if there are any, `label` and `split`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qzoo.data.files import file_samples, open_image
from qzoo.data.lazy import LazySamples
from qzoo.data.stratify import split_by_content
from qzoo.errors import DataUnavailable
from qzoo.hookspecs import Sample, Split

if TYPE_CHECKING:
    from PIL import Image

SPLITS: dict[str, Split] = {
    "calibration": "calibration",
    "train": "calibration",
    "held-out": "held-out",
    "val": "held-out",
    "validation": "held-out",
    "test": "held-out",
}


class ListedDataset:
    """The images that a CSV (or .tsv) file names, relative to its folder; ids are the paths as they are written.

    Labels are class indices if every one is a whole number (then the classes have no names), else class names, which
    are sorted. Without a `split` column a fifth is held out, as of a directory.
    """

    def __init__(self, path: Path) -> None:
        self._folder, self.name = path.parent, path.stem
        rows = _rows(path)
        self.classes = _classes([row.get("label") or "" for row in rows])
        index = {name: i for i, name in enumerate(self.classes or ())}
        self._path = path
        self._lists = {
            split: self._samples_of([row for row in rows if _split(path, row) == split], index)
            for split in (*dict.fromkeys(SPLITS.values()), None)
        }

    def samples(self, split: Split) -> Sequence[Sample]:
        """The samples of a split, in the file's order. Raises DataUnavailable for a file that can't be read."""
        undecided = self._lists[None]
        if not undecided:
            return self._lists[split]
        if any(self._lists[known] for known in SPLITS.values()):
            raise DataUnavailable(f"data: {self._path} gives only some rows a split; give all of them one, or none")
        return split_by_content(undecided, str(self._path))[split]

    def image(self, sample: Sample) -> Image.Image:
        """Decode one file. Raises DataUnavailable."""
        return open_image(self._folder / sample.id)

    def __getstate__(self) -> dict[str, object]:
        # what a worker process decodes by; the listing, which may be long, stays here
        return {"_folder": self._folder, "name": self.name, "classes": self.classes}

    def _samples_of(self, rows: list[dict[str, str]], index: dict[str, int]) -> LazySamples:
        labels = [_label(row.get("label") or "", index) for row in rows]
        return file_samples([row["path"] for row in rows], [self._folder / row["path"] for row in rows], labels)


def open_list(path: Path) -> ListedDataset:
    """Open a CSV file. Raises DataUnavailable, naming file and line, where it is no such list."""
    try:
        return ListedDataset(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataUnavailable(f"data: {path} can't be read as a CSV file: {error}") from error


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", skipinitialspace=True)
        if "path" not in (reader.fieldnames or ()):
            raise DataUnavailable(
                f"data: {path}: the first line must name the columns, `path` among them (then `label` and `split`, if "
                f"there are any); found {reader.fieldnames}"
            )
        rows = []
        for row in reader:
            if not row["path"]:
                raise DataUnavailable(f"data: {path}, line {reader.line_num}: no path")
            rows.append(row)
    if not rows:
        raise DataUnavailable(f"data: {path} lists no images")
    return rows


def _classes(labels: list[str]) -> tuple[str, ...] | None:
    given = {label for label in labels if label}
    return None if all(label.isdecimal() for label in given) else tuple(sorted(given))


def _label(text: str, index: dict[str, int]) -> int | None:
    if not text:
        return None
    return index[text] if index else int(text)


def _split(path: Path, row: dict[str, str]) -> Split | None:
    name = (row.get("split") or "").lower()
    if name and name not in SPLITS:
        raise DataUnavailable(f"data: {path}: unknown split {name!r}; known: {', '.join(SPLITS)}")
    return SPLITS.get(name)
