"""Files that appear whole or not at all, and what is said where they can't be written."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qzoo.errors import StoreError

TEMPORARY = ".tmp-"
OUR_FAULT = {errno.ENOSPC: "the disk is full", errno.EROFS: "it is read-only", errno.EDQUOT: "the quota is used up"}
"""Why a file can't be written, where that is for the user to mend."""


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn a failure to write below `place` into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        why = OUR_FAULT.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(
            f"{place} can't be written: {why}; free space there, or point QZOO_HOME (or -o) to another place"
        ) from error


@contextmanager
def new_file(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name when the block ends well, and is removed when it doesn't.

    Its content is on the disk before it has the name. It is locked meanwhile, so that `left_over` knows it from one
    whose process died. Raises StoreError where it can't be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        temporary = Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.fchmod(handle, mode)
            yield temporary
            os.fsync(handle)
            temporary.replace(path)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises StoreError."""
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def left_over(folder: Path) -> list[Path]:
    """The temporaries of `new_file` anywhere in a folder whose process died before it could remove them, sorted."""
    return [path for path in sorted(folder.rglob(f"{TEMPORARY}*")) if path.is_file() and not _locked(path)]


def _locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):  # not found: it just took its name, or was removed
        return True
    return False
