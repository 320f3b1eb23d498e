"""An OCI registry over HTTP (distribution-spec 1.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

from qzoo.errors import AuthenticationError, IntegrityError, RemoteError, RemoteInterrupted, UsageError
from qzoo.records import decode
from qzoo.store.layout import INDEX, MANIFEST, Descriptor
from qzoo.zoo.credentials import origin_of
from qzoo.zoo.http import Body, Client, Logins, Readable, is_loopback, open_blob, read_document
from qzoo.zoo.remote import CHUNK, BlobStream, Document, Moved
from qzoo.zoo.retry import Backoff, retried

_LOCATION = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::(?P<port>[0-9]{1,5}))?(?P<prefix>(?:/[a-z0-9._-]+)*)/?"
)
PAGE = 1000
"""Tags or names that are asked for at once."""
PAGES = 1000


class Registry:
    """`host[:port][/prefix]`: names are repositories below the prefix. Plain HTTP to this machine, else https."""

    def __init__(self, location: str, logins: Logins | None = None, *, insecure: bool = False) -> None:
        match = _LOCATION.fullmatch(location)
        if match is None:
            raise UsageError(
                f"{location!r} is no registry; write host[:port][/prefix], oci-layout:DIR, or https://... for a tree "
                "of files"
            )
        self.location = location.rstrip("/")
        address = match["host"].lower() + (f":{match['port']}" if match["port"] else "")
        plain = insecure or is_loopback(f"http://{address}")
        self.origin = origin_of(f"{'http' if plain else 'https'}://{address}")
        self._prefix = match["prefix"].lstrip("/")
        self.registry = f"{address}{match['prefix']}"
        self._client = Client(self.origin, logins, insecure=insecure)
        self._backoff = Backoff()

    def check(self) -> None:
        """Ask whether it is a registry, and lets us in. Raises AuthenticationError, RemoteError."""
        self._asked("GET", f"{self.origin}/v2/", expect=(200,))

    def find(self, name: str, reference: str) -> Document | None:
        """See Remote."""
        accept = {"Accept": f"{INDEX}, {MANIFEST}"}

        def get() -> tuple[Document | None, str]:
            url = f"{self._of(name)}/manifests/{reference}"
            with self._client.send("GET", url, expect=(200, 404), scope=self._pull(name), headers=accept) as response:
                if response.status_code == 404:
                    return None, ""
                return Document(read_document(response, self.location)), response.headers.get(
                    "Docker-Content-Digest", ""
                )

        document, stated = retried(get, self._backoff)
        if document is None:
            return None
        expected = reference if reference.startswith("sha256:") else stated
        if expected.startswith("sha256:") and document.digest != expected:
            raise IntegrityError(
                f"{self.location}/{name}:{reference} was changed: expected {expected}, found {document.digest}; ask "
                "who publishes it to push it again"
            )
        return document

    def blob(self, name: str, blob: Descriptor, start: int = 0) -> AbstractContextManager[BlobStream]:
        """See Remote."""
        return open_blob(self._client, f"{self._of(name)}/blobs/{blob.digest}", blob, start, self._pull(name))

    def has(self, name: str, blob: Descriptor) -> bool:
        """See Remote."""
        path = f"{self._of(name)}/blobs/{blob.digest}"
        return self._asked("HEAD", path, expect=(200, 404), scope=self._push(name)).status == 200

    def put_blob(self, name: str, blob: Descriptor, path: Path, moved: Moved) -> None:
        """See Remote. One streamed request; after a cut it begins again ("Pushing a blob monolithically")."""

        def put() -> None:
            started = self._asked_once("POST", f"{self._of(name)}/blobs/uploads/", (202,), self._push(name))
            where = self._client.resolved(started.url, started.location)
            body = _Upload(path, blob.size, moved)
            try:
                url = f"{where}{'&' if '?' in where else '?'}{urlencode({'digest': blob.digest})}"
                headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
                self._asked_once("PUT", url, (201,), self._push(name), headers, body.opened)
            except BaseException:
                body.rewind()
                raise

        retried(put, self._backoff)

    def put_document(self, name: str, reference: str, document: Document) -> None:
        """See Remote."""
        url = f"{self._of(name)}/manifests/{reference}"
        headers = {"Content-Type": document.media_type}
        self._asked("PUT", url, expect=(201,), scope=self._push(name), headers=headers, body=document.data)

    def tags(self, name: str) -> list[str]:
        """See Remote."""
        return sorted(self._listed(f"{self._of(name)}/tags/list", "tags", self._pull(name)) or [])

    def names(self) -> list[str] | None:
        """See Remote. Many registries keep it closed."""
        try:
            found = self._listed(f"{self.origin}/v2/_catalog", "repositories", "registry:catalog:*")
        except RemoteInterrupted:
            raise
        except (AuthenticationError, RemoteError):
            return None
        below = f"{self._prefix}/" if self._prefix else ""
        return None if found is None else sorted(one.removeprefix(below) for one in found if one.startswith(below))

    def _listed(self, path: str, field: str, scope: str) -> list[str] | None:
        found: list[str] = []
        url: str | None = f"{path}?n={PAGE}"
        for _ in range(PAGES + 1):
            if url is None:
                return found
            answer = self._asked("GET", url, expect=(200, 404), scope=scope)
            if answer.status == 404:
                return None
            page = decode(answer.data, dict[str, Any], f"{self.location}'s list of {field}").get(field) or []
            found += map(str, page)
            link = re.match(r'<([^>]+)>;\s*rel="?next"?', answer.link)
            url = self._client.resolved(answer.url, link[1]) if link and page else None
        raise RemoteError(f"{self.location} gives more than {PAGES} pages of {field}; name what you want")

    def _of(self, name: str) -> str:
        return f"{self.origin}/v2/{self._repository(name)}"

    def _repository(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _pull(self, name: str) -> str:
        return f"repository:{self._repository(name)}:pull"

    def _push(self, name: str) -> str:
        return f"repository:{self._repository(name)}:pull,push"

    def _asked(
        self,
        method: str,
        path: str,
        *,
        expect: tuple[int, ...],
        scope: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> _Answer:
        made = None if body is None else lambda: body
        return retried(lambda: self._asked_once(method, path, expect, scope, headers, made), self._backoff)

    def _asked_once(
        self,
        method: str,
        url: str,
        expect: tuple[int, ...],
        scope: str,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
    ) -> _Answer:
        with self._client.send(method, url, expect=expect, scope=scope, headers=headers, body=body) as response:
            return _Answer(
                status=response.status_code,
                url=response.url,
                location=response.headers.get("Location", ""),
                link=response.headers.get("Link", ""),
                data=b"" if method == "HEAD" else read_document(response, self.location),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    url: str
    location: str
    link: str
    data: bytes


class _Upload:
    """A file as a request's body, as often as it must be sent; tells how much of it has been read."""

    def __init__(self, path: Path, size: int, moved: Moved) -> None:
        self._path, self._size, self._moved, self._sent = path, size, moved, 0

    def opened(self) -> Readable | bytes:
        """The body, from its start."""
        self.rewind()
        return _Counted(self._path.open("rb"), self._size, self._count) if self._size else b""

    def rewind(self) -> None:
        """What was sent counts no more."""
        self._count(-self._sent)

    def _count(self, size: int) -> None:
        self._sent += size
        self._moved(size)


class _Counted:
    """An open file that tells how much of it is read."""

    def __init__(self, file: IO[bytes], size: int, count: Moved) -> None:
        self._file, self._size, self._count = file, size, count

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(CHUNK):
            yield data

    def read(self, size: int, /) -> bytes:  # noqa: ARG002 - larger pieces than http.client asks for are sent faster
        data = self._file.read(CHUNK)
        self._count(len(data))
        return data

    def close(self) -> None:
        self._file.close()
