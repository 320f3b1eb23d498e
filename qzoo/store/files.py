"""Directories that appear whole or not at all, links, names and digests."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qzoo.errors import IntegrityError
from qzoo.records import file_digest
from qzoo.writing import OUR_FAULT, TEMPORARY, writing

_MEND = "build it again with --force, or fetch it again"


def is_plain(name: str) -> bool:
    """Whether a name that came from elsewhere stays in the directory it is joined to."""
    return name not in ("", ".", "..") and name.isprintable() and not re.search(r"[/\\]", name)


def is_sha256(text: str) -> bool:
    """Whether the text is a SHA-256 in lowercase hex, as the names of blobs and bundle directories are."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes `path` when the block ends well, and is removed when it doesn't.

    Where `path` exists by then (somebody else was faster, or an older one is replaced) the new one takes its place.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        with writing(path):
            yield temporary
            _take_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, path: Path) -> None:
    temporary.chmod(0o755)
    try:
        temporary.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        old = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
        try:
            path.replace(old)
            temporary.replace(path)
        finally:
            shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in OUR_FAULT:
            raise
        shutil.copyfile(source, target)


def verify_file(path: Path, sha256: str) -> None:
    """Raise IntegrityError, naming the file, the expected and the found digest, unless the file has that SHA-256."""
    try:
        found = file_digest(path)
    except OSError as error:
        raise IntegrityError(f"{path} can't be read: {error.strerror}; {_MEND}") from error
    if found != sha256:
        raise IntegrityError(f"{path} was changed: expected sha256:{sha256}, found sha256:{found}; {_MEND}")
