"""What a zoo is to push and pull: documents by tag or digest, and blobs, of one name each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from qzoo.errors import IntegrityError
from qzoo.records import decode
from qzoo.store.files import is_sha256
from qzoo.store.layout import INDEX, MANIFEST, Descriptor, ImageManifest, Index

DOCUMENT_LIMIT = 4 << 20
"""The largest index or manifest in bytes that is read (distribution-spec 1.1, "Pushing Manifests")."""
CHUNK = 1 << 20
"""Bytes that are read from a file or a connection at once."""
Moved = Callable[[int], None]
"""Told how many more bytes have moved; a negative number where they must move again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    mediaType: str = ""  # noqa: N815 - the specification's own name
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """An image index or image manifest, byte for byte as it is published."""

    data: bytes

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"

    @property
    def media_type(self) -> str:
        """What it says of itself. Raises IntegrityError where that is neither an OCI index nor a manifest."""
        found = decode(self.data, _Kind, self.digest).mediaType
        if found not in (INDEX, MANIFEST):
            raise IntegrityError(f"{self.digest} is {found or 'of no type'}, neither an OCI image index nor a manifest")
        return found

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(mediaType=self.media_type, digest=self.digest, size=len(self.data))

    def described(self) -> Descriptor:
        """Its descriptor with its own annotations, which its digest covers, as an index of its publisher's has them."""
        return replace(self.descriptor, annotations=decode(self.data, _Kind, self.digest).annotations)

    def children(self) -> list[Descriptor]:
        """What an index lists; for a manifest nothing. Raises IntegrityError where it isn't valid."""
        if self.media_type == MANIFEST:
            return []
        return [checked(one, self.digest) for one in decode(self.data, Index, self.digest).manifests]

    def blobs(self) -> list[Descriptor]:
        """What a manifest refers to: its config, then its layers. Raises IntegrityError where it isn't valid."""
        manifest = decode(self.data, ImageManifest, self.digest)
        return [checked(one, self.digest) for one in (manifest.config, *manifest.layers)]


@dataclass(frozen=True, slots=True)
class BlobStream:
    """A blob's bytes from `start` on: a server that can't resume begins at 0."""

    start: int
    chunks: Iterator[bytes]


class Remote(Protocol):
    """A registry, a folder or a static tree. What it can't do, or can't be asked now, is a RemoteError."""

    @property
    def location(self) -> str:
        """As the user writes it: `127.0.0.1:5000`, `oci-layout:DIR`, `https://host/path`."""

    @property
    def registry(self) -> str:
        """What a tag's freshness is stated for: a registry's location; empty for files, whose address may change."""

    def find(self, name: str, reference: str) -> Document | None:
        """What a tag, or a digest `sha256:...`, names; None where there is no such thing.

        Raises IntegrityError where the bytes don't have the digest that was asked for.
        """

    def blob(self, name: str, blob: Descriptor, start: int = 0) -> AbstractContextManager[BlobStream]:
        """Read a blob from byte `start` on, unchecked. Raises RemoteInterrupted, also while it is read."""

    def has(self, name: str, blob: Descriptor) -> bool:
        """Whether a blob is there."""

    def put_blob(self, name: str, blob: Descriptor, path: Path, moved: Moved) -> None:
        """Upload a blob, read in pieces. The file must be what the descriptor says. Raises UsageError if read-only."""

    def put_document(self, name: str, reference: str, document: Document) -> None:
        """Publish a document whose blobs are there, under a tag or its digest."""

    def tags(self, name: str) -> list[str]:
        """Every tag of a name, sorted; none where nothing has that name."""

    def names(self) -> list[str] | None:
        """Every name, sorted; None where that is not told."""


def index_of(children: Sequence[Descriptor]) -> Document:
    """An image index of these, its fields in the order of the specification."""
    import msgspec

    fields = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one.as_json() for one in children]}
    return Document(msgspec.json.encode(fields))


def checked(descriptor: Descriptor, source: str) -> Descriptor:
    """The same descriptor. Its digest becomes a file's name, and its size a limit, so neither may be anything else."""
    if not descriptor.digest.startswith("sha256:") or not is_sha256(descriptor.sha256) or descriptor.size < 0:
        raise IntegrityError(
            f"{source} refers to {descriptor.digest!r} of {descriptor.size} bytes, which is no sha256 digest with a "
            "size; don't use it"
        )
    return descriptor
