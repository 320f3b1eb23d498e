"""An OCI image layout behind any HTTP server of files. Read-only."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from qzoo.errors import RemoteError, UsageError
from qzoo.store.layout import Descriptor
from qzoo.zoo.credentials import origin_of
from qzoo.zoo.http import Client, Logins, open_blob, read_document
from qzoo.zoo.listing import Listing, wanted
from qzoo.zoo.remote import BlobStream, Document, Moved
from qzoo.zoo.retry import Backoff, retried


class StaticTree:
    """`http(s)://host/path`: the directory that has `oci-layout`, `index.json` and `blobs`."""

    registry = ""

    def __init__(self, location: str, logins: Logins | None = None, *, insecure: bool = False) -> None:
        if "?" in location or "#" in location:
            raise UsageError(f"{location!r}: give the address of a directory, without what follows ? or #")
        self.location = location.rstrip("/")
        self._client = Client(origin_of(location), logins, insecure=insecure)
        self._backoff = Backoff()

    def find(self, name: str, reference: str) -> Document | None:
        """See Remote."""
        digest = reference if reference.startswith("sha256:") else self._listing().digest_of(name, reference)
        data = None if digest is None else self._file(_path(digest))
        return None if data is None or digest is None else wanted(data, digest, f"{self.location}/{_path(digest)}")

    def blob(self, name: str, blob: Descriptor, start: int = 0) -> AbstractContextManager[BlobStream]:  # noqa: ARG002
        """See Remote."""
        return open_blob(self._client, f"{self.location}/{_path(blob.digest)}", blob, start)

    def has(self, name: str, blob: Descriptor) -> bool:  # noqa: ARG002
        """See Remote."""

        def head() -> bool:
            url = f"{self.location}/{_path(blob.digest)}"
            with self._client.send("HEAD", url, expect=(200, 404)) as response:
                return response.status_code == 200

        return retried(head, self._backoff)

    def put_blob(self, name: str, blob: Descriptor, path: Path, moved: Moved) -> None:  # noqa: ARG002
        """Not possible."""
        raise self._read_only()

    def put_document(self, name: str, reference: str, document: Document) -> None:  # noqa: ARG002
        """Not possible."""
        raise self._read_only()

    def tags(self, name: str) -> list[str]:
        """See Remote."""
        return self._listing().tags(name)

    def names(self) -> list[str] | None:
        """See Remote."""
        return self._listing().names()

    def _read_only(self) -> UsageError:
        return UsageError(
            f"{self.location} is a tree of files, which can only be read; push to the directory that it shows, "
            "--registry oci-layout:DIR"
        )

    def _listing(self) -> Listing:
        data = self._file("index.json")
        if data is None:
            raise RemoteError(
                f"{self.location} has no index.json, so it shows no OCI layout; a registry is written without a "
                "scheme, host[:port]"
            )
        return Listing.read(data, f"{self.location}/index.json")

    def _file(self, path: str) -> bytes | None:
        def get() -> bytes | None:
            with self._client.send("GET", f"{self.location}/{path}", expect=(200, 404)) as response:
                return None if response.status_code == 404 else read_document(response, self.location)

        return retried(get, self._backoff)


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"
