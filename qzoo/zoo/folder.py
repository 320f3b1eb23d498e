"""An OCI image layout in a directory: a zoo without a server, or what a server of files shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from filelock import FileLock

from qzoo.errors import RemoteError, UsageError
from qzoo.store.layout import REF_NAME, Descriptor, Layout
from qzoo.writing import new_file, write_file, writing
from qzoo.zoo.listing import Listing, wanted
from qzoo.zoo.remote import CHUNK, DOCUMENT_LIMIT, BlobStream, Document, Moved

SCHEME = "oci-layout:"


class Folder:
    """`oci-layout:DIR`. The directory is made by the first push."""

    registry = ""

    def __init__(self, location: str) -> None:
        directory = Path(location.removeprefix(SCHEME)).expanduser()
        if not location.removeprefix(SCHEME):
            raise UsageError(f"{location!r} names no directory; write {SCHEME}DIR")
        self._layout = Layout(directory.absolute())
        self.location = f"{SCHEME}{self._layout.root}"

    def find(self, name: str, reference: str) -> Document | None:
        """See Remote."""
        digest = reference if reference.startswith("sha256:") else self._listing().digest_of(name, reference)
        path = None if digest is None else self._layout.blob_path(digest.removeprefix("sha256:"))
        if path is None or digest is None or not path.is_file():
            return None
        if path.stat().st_size > DOCUMENT_LIMIT:
            raise RemoteError(f"{path} is larger than the {DOCUMENT_LIMIT} bytes of a document; was a blob meant?")
        return wanted(self._read(path), digest, str(path))

    @contextmanager
    def blob(self, name: str, blob: Descriptor, start: int = 0) -> Iterator[BlobStream]:  # noqa: ARG002
        """See Remote."""
        path = self._layout.blob_path(blob.sha256)
        try:
            file = path.open("rb")
        except OSError as error:
            raise RemoteError(
                f"{path} can't be read: {error.strerror}; ask who publishes it to push it again"
            ) from error
        with file:
            file.seek(start)
            yield BlobStream(start, _chunks(file, path))

    def has(self, name: str, blob: Descriptor) -> bool:  # noqa: ARG002
        """See Remote. One of another size is not there."""
        path = self._layout.blob_path(blob.sha256)
        return path.is_file() and path.stat().st_size == blob.size

    def put_blob(self, name: str, blob: Descriptor, path: Path, moved: Moved) -> None:  # noqa: ARG002
        """See Remote."""
        with (
            path.open("rb") as source,
            new_file(self._layout.blob_path(blob.sha256)) as temporary,
            temporary.open("wb") as target,
        ):
            while chunk := source.read(CHUNK):
                target.write(chunk)
                moved(len(chunk))

    def put_document(self, name: str, reference: str, document: Document) -> None:
        """See Remote."""
        descriptor = document.descriptor
        write_file(self._layout.blob_path(descriptor.sha256), document.data)
        if reference.startswith("sha256:"):
            return
        with writing(self._layout.root), FileLock(self._layout.root / ".index.lock"):
            tagged = {**self._listing().tagged, f"{name}:{reference}": descriptor}
            self._layout.write_top(
                replace(one, annotations={**one.annotations, REF_NAME: key}) for key, one in sorted(tagged.items())
            )

    def tags(self, name: str) -> list[str]:
        """See Remote."""
        return self._listing().tags(name)

    def names(self) -> list[str] | None:
        """See Remote."""
        return self._listing().names()

    def _listing(self) -> Listing:
        path = self._layout.root / "index.json"
        if not path.exists():
            return Listing({})
        return Listing.read(self._read(path), str(path))

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise RemoteError(f"{path} can't be read: {error.strerror}") from error


def _chunks(file: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        while chunk := file.read(CHUNK):
            yield chunk
    except OSError as error:
        raise RemoteError(f"{path} can't be read: {error.strerror}") from error
