"""Removes what the store's index no longer reaches."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from qzoo.store.files import TEMPORARY, is_sha256
from qzoo.store.layout import BUNDLE_ID, Layout


@dataclass(frozen=True, slots=True)
class GcReport:
    """How many blobs, bundle directories and left-over temporaries were removed, and the bytes that freed."""

    blobs: int
    bundles: int
    temporaries: int
    freed_bytes: int


def collect(layout: Layout, bundles: Path) -> GcReport:
    """Remove blobs and bundle directories that index.json doesn't lead to, and every temporary.

    The caller holds the lock under which all writers write: so whoever made a temporary that is there is dead, and
    a blob that nothing reaches is nobody's half-done work. Files of any other name are left alone.

    Raises IntegrityError, before anything is removed, where what the index leads to can't be read.
    """
    reached = list(layout.reachable())
    blobs = {descriptor.sha256 for descriptor in reached}
    ids = {descriptor.annotations.get(BUNDLE_ID) for descriptor in reached}
    idle_bundles = [path for path in bundles.glob("*") if is_sha256(path.name) and path.name not in ids]
    idle_blobs = [path for path in layout.stored() if path.name not in blobs]
    temporaries = [path for place in (bundles, layout.blobs, layout.root) for path in place.glob(f"{TEMPORARY}*")]
    return GcReport(
        blobs=len(idle_blobs),
        bundles=len(idle_bundles),
        temporaries=len(temporaries),
        freed_bytes=sum(_remove(path) for path in (*idle_bundles, *temporaries, *idle_blobs)),
    )


def _remove(path: Path) -> int:
    """Remove a file or directory; the bytes this frees: a file's with its last link."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    freed = sum(stat.st_size for stat in (file.stat() for file in files) if stat.st_nlink == 1)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return freed
