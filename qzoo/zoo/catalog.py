"""What a zoo holds. A registry's own list is often closed, so pushes keep one: the artifact `qzoo-catalog:latest`.

It is an index like a model's, with an entry, a manifest without content, for each name:tag; they are merged as a tag's
engines are (`qzoo.zoo.merge`). A zoo without one is looked through tag by tag.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from qzoo.errors import AuthenticationError, RemoteError
from qzoo.store.describe import target_of
from qzoo.store.layout import SIGNS, Descriptor
from qzoo.zoo.empty import put_empty
from qzoo.zoo.freshness import is_referrers_tag
from qzoo.zoo.merge import REFERENCE, is_part, publish
from qzoo.zoo.remote import Document, Remote
from qzoo.zoo.signature import describe, signed_manifest

CATALOG, LATEST = "qzoo-catalog", "latest"
ENTRY = "application/vnd.qzoo.catalog-entry.v1"
TARGETS, _SEPARATOR = "dev.qzoo.targets", ", "
ATTEMPTS = 5
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A published name:tag, and the targets of its engines, with their runtimes' versions."""

    reference: str
    targets: tuple[str, ...]


def tags_of(remote: Remote, name: str) -> list[str]:
    """The tags of a name that engines can be pulled by."""
    return [tag for tag in remote.tags(name) if not is_part(tag) and not is_referrers_tag(tag)]


def catalog(remote: Remote) -> list[CatalogEntry]:
    """Everything that a zoo holds, by reference. Raises RemoteError where it doesn't tell."""
    index = remote.find(CATALOG, LATEST)
    if index is not None:
        return [_read(child) for child in index.children() if REFERENCE in child.annotations]
    names = remote.names()
    if names is None:
        raise RemoteError(
            f"{remote.location} keeps its list of names closed, and no push has made {CATALOG} there yet; ask for the "
            "tags of a name: qzoo tags NAME"
        )
    found = [(name, tag, remote.find(name, tag)) for name in names for tag in tags_of(remote, name)]
    return [_entry(f"{name}:{tag}", document) for name, tag, document in found if document is not None]


def announce(remote: Remote, name: str, tag: str) -> None:
    """Put what a tag holds now into the catalog. Where that is not allowed it is said, and the push stands."""
    try:
        for _ in range(ATTEMPTS):
            index = remote.find(name, tag)
            if index is None:
                return
            _write(remote, _entry(f"{name}:{tag}", index))
            if remote.find(name, tag) == index:
                return
    except (AuthenticationError, RemoteError) as error:
        LOGGER.warning("%s:%s is pushed, but %s could not be updated: %s", name, tag, CATALOG, error)


def _write(remote: Remote, entry: CatalogEntry) -> None:
    annotations = {REFERENCE: entry.reference, TARGETS: _SEPARATOR.join(entry.targets)}
    document = Document(signed_manifest(ENTRY, annotations))
    if remote.find(CATALOG, document.digest) is None:
        put_empty(remote, CATALOG)
        remote.put_document(CATALOG, document.digest, document)
    publish(remote, CATALOG, LATEST, [[describe(document.data, annotations)]])


def _entry(reference: str, index: Document) -> CatalogEntry:
    targets = (target_of(child) for child in index.children() if SIGNS not in child.annotations)
    return CatalogEntry(
        reference=reference,
        targets=tuple(sorted({f"{one} {one.version}" for one in targets if one is not None})),
    )


def _read(child: Descriptor) -> CatalogEntry:
    targets = child.annotations.get(TARGETS, "")
    return CatalogEntry(
        reference=child.annotations[REFERENCE], targets=tuple(targets.split(_SEPARATOR)) if targets else ()
    )
