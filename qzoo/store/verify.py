"""Finds what was changed in a store after it was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qzoo.records import file_digest
from qzoo.store.bundle import MANIFEST
from qzoo.store.layout import BUNDLE_ID, Layout


@dataclass(frozen=True, slots=True)
class Damage:
    """A file whose SHA-256 isn't the expected one; `found` is None where it is missing or can't be read."""

    path: Path
    expected: str
    found: str | None


def damaged(layout: Layout, bundles: Path) -> Iterator[Damage]:
    """Every file that differs: blobs that index.json leads to, files of their bundles, then blobs nothing leads to.

    What a damaged document led to can't be told, so it counts as the last kind. A bundle whose directory is gone is
    none: it is checked out when it is asked for. Takes no lock: what is removed meanwhile may be yielded.

    Raises IntegrityError where index.json itself isn't valid.
    """
    digests = _Digests()
    queue, seen = list(layout.read_index().manifests), set()
    for descriptor in queue:  # grows as documents are read
        if descriptor.sha256 in seen:
            continue
        seen.add(descriptor.sha256)
        damage = list(digests.compare(layout.blob_path(descriptor.sha256), descriptor.sha256))
        yield from damage
        if not damage:
            queue += layout.below(descriptor)
            place = bundles / descriptor.annotations.get(BUNDLE_ID, "")
            if (place / MANIFEST).is_file():
                for name, layer in layout.files_of(descriptor).items():
                    yield from digests.compare(place / name, layer.sha256)
    for path in sorted(layout.stored()):
        if path.name not in seen:
            yield from digests.compare(path, path.name)


class _Digests:
    """SHA-256 of files; hard links to one file are read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], str] = {}

    def compare(self, path: Path, expected: str) -> Iterator[Damage]:
        found = self._of(path)
        if found != expected:
            yield Damage(path, expected, found)

    def _of(self, path: Path) -> str | None:
        try:
            stat = path.stat()
            if (stat.st_dev, stat.st_ino) not in self._known:
                self._known[stat.st_dev, stat.st_ino] = file_digest(path)
        except OSError:
            return None
        return self._known[stat.st_dev, stat.st_ino]
