"""Finds what was changed in a store after it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qzoo.records import file_digest
from qzoo.store.bundle import MANIFEST
from qzoo.store.layout import BUNDLE_ID, Descriptor, Layout


@dataclass(frozen=True, slots=True)
class Damage:
    """A file whose SHA-256 isn't the expected one; `found` is None where it is missing or can't be read."""

    path: Path
    expected: str
    found: str | None


class Verification:
    """The files of a store with the digests they should have, and a way to compare them.

    Takes no lock: what is removed meanwhile may be called damage.
    """

    def __init__(self, layout: Layout, bundles: Path, roots: Iterable[Descriptor], *, unreached: bool) -> None:
        """List what `roots` lead to: blobs, and files of their bundles; then blobs they don't, if `unreached`.

        What a damaged document led to can't be told, so it counts as the last kind. A bundle whose directory is gone
        is none: it is checked out when it is asked for.
        """
        self._digests: dict[tuple[int, int], str] = {}
        self._expected: dict[Path, list[str]] = {}
        queue, seen = list(roots), set()
        for descriptor in queue:  # grows as documents are read
            if descriptor.sha256 in seen:
                continue
            seen.add(descriptor.sha256)
            blob = layout.blob_path(descriptor.sha256)
            self._expect(blob, descriptor.sha256)
            if descriptor.is_document and self._digest(blob) == descriptor.sha256:
                queue += layout.below(descriptor)
                place = bundles / descriptor.annotations.get(BUNDLE_ID, "")
                if (place / MANIFEST).is_file():
                    files = layout.files_of(descriptor)
                    for name, layer in files.items():
                        self._expect(place / name, layer.sha256)
        if unreached:
            for path in sorted(layout.stored()):
                if path.name not in seen:
                    self._expect(path, path.name)

    def _expect(self, path: Path, sha256: str) -> None:
        """A file of a bundle may be either of two: bundles of one id, from two machines, share a directory."""
        self._expected.setdefault(path, []).append(sha256)

    @property
    def files(self) -> int:
        """How many files are compared."""
        return len(self._expected)

    def damage(self, advance: Callable[[], None] = lambda: None) -> Iterator[Damage]:
        """Every file that differs; reads all of them. `advance` is called once per file."""
        for path, expected in self._expected.items():
            found = self._digest(path)
            advance()
            if found not in expected:
                yield Damage(path, expected[0], found)

    def _digest(self, path: Path) -> str | None:
        """The file's SHA-256; hard links to one file are read once."""
        try:
            stat = path.stat()
            if (stat.st_dev, stat.st_ino) not in self._digests:
                self._digests[stat.st_dev, stat.st_ino] = file_digest(path)
        except OSError:
            return None
        return self._digests[stat.st_dev, stat.st_ino]
