"""Removes what the store's index no longer reaches."""

from __future__ import annotations

import shutil
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qzoo.store.files import is_sha256
from qzoo.store.layout import BUNDLE_ID, Layout
from qzoo.writing import TEMPORARY, left_over


@dataclass(frozen=True, slots=True)
class GcReport:
    """How many blobs, bundle directories and left-over temporaries were removed, and the bytes that freed."""

    blobs: int
    bundles: int
    temporaries: int
    freed_bytes: int


def collect(layout: Layout, bundles: Path, origins: Path, cache: Path, *, dry_run: bool = False) -> GcReport:
    """Remove blobs and bundle directories that index.json doesn't lead to, and every temporary.

    The caller holds the lock under which all writers write but those to the cache: so whoever made a temporary that is
    there is dead, and a blob that nothing reaches is nobody's half-done work; in `cache`, those go that no process
    holds. Files of any other name are left alone. With `dry_run` nothing is removed, and the report is what would be.

    Raises IntegrityError, before anything is removed, where what the index leads to can't be read.
    """
    reached = list(layout.reachable())
    blobs = {descriptor.sha256 for descriptor in reached}
    ids = {descriptor.annotations.get(BUNDLE_ID) for descriptor in reached}
    idle_bundles = [path for path in bundles.glob("*") if is_sha256(path.name) and path.name not in ids]
    idle_blobs = [path for path in layout.stored() if path.name not in blobs]
    temporaries = [
        path for place in (bundles, origins, layout.blobs, layout.root) for path in place.glob(f"{TEMPORARY}*")
    ]
    temporaries += left_over(cache)
    idle = [*idle_bundles, *temporaries, *idle_blobs]
    report = GcReport(
        blobs=len(idle_blobs), bundles=len(idle_bundles), temporaries=len(temporaries), freed_bytes=freed_by(idle)
    )
    if not dry_run:
        remove(idle)
    return report


def freed_by(paths: Iterable[Path]) -> int:
    """The bytes that removing these files and directories frees: a file's where none of its links is left."""
    links: dict[tuple[int, int], int] = defaultdict(int)
    freed = 0
    for file in (file for path in paths for file in (path, *path.rglob("*"))):
        found = file.lstat()
        if stat.S_ISREG(found.st_mode):
            links[found.st_dev, found.st_ino] += 1
            freed += found.st_size if links[found.st_dev, found.st_ino] == found.st_nlink else 0
    return freed


def remove(paths: Iterable[Path]) -> None:
    """Remove files and directories, never what a link leads to."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
