"""What an OCI layout's index.json lists: one descriptor per name:tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qzoo.errors import IntegrityError
from qzoo.records import decode
from qzoo.store.layout import REF_NAME, Descriptor, Index
from qzoo.zoo.remote import Document, checked


@dataclass(frozen=True, slots=True)
class Listing:
    """The descriptors by name:tag; what has another annotation or none is passed over."""

    tagged: Mapping[str, Descriptor]

    @classmethod
    def read(cls, data: bytes, source: str) -> Listing:
        """Read an index.json. Raises IntegrityError."""
        found = [checked(one, source) for one in decode(data, Index, source).manifests]
        return cls({one.annotations[REF_NAME]: one for one in found if REF_NAME in one.annotations})

    def digest_of(self, name: str, tag: str) -> str | None:
        """What a tag leads to."""
        found = self.tagged.get(f"{name}:{tag}")
        return None if found is None else found.digest

    def tags(self, name: str) -> list[str]:
        """The tags of a name."""
        return sorted(key.rpartition(":")[2] for key in self.tagged if key.rpartition(":")[0] == name)

    def names(self) -> list[str]:
        """Every name."""
        return sorted({key.rpartition(":")[0] for key in self.tagged if ":" in key})


def wanted(data: bytes, digest: str, source: str) -> Document:
    """The document that the bytes are. Raises IntegrityError where they don't have the digest."""
    document = Document(data)
    if document.digest != digest:
        raise IntegrityError(
            f"{source} was changed: expected {digest}, found {document.digest}; ask who publishes it to push it again"
        )
    return document
