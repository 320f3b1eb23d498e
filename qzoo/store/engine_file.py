"""What ENGINE means on the command line: an engine on disk, however it is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qzoo.errors import UsageError
from qzoo.records import EngineRecord, file_digest
from qzoo.store.bundle import MANIFEST, Bundle, read_record, sidecar
from qzoo.store.reference import Reference

if TYPE_CHECKING:
    from qzoo.store import Store


@dataclass(frozen=True, slots=True)
class EngineFile:
    """An engine on disk, with its record; `reference` is what it was asked for by, where that was one."""

    path: Path
    record: EngineRecord
    reference: Reference | None = None

    @property
    def record_sha256(self) -> str:
        """SHA-256 of the record's file, which names the engine's own: the digest of both."""
        return file_digest(sidecar(self.path))

    @property
    def bundle(self) -> Bundle | None:
        """The bundle it is the engine of; None where it lies alone. Raises IntegrityError where that is damaged."""
        if not (self.path.parent / MANIFEST).is_file():
            return None
        bundle = Bundle.open(self.path.parent)
        return bundle if bundle.engine == self.path else None


def names_engine(text: str) -> bool:
    """Whether a word that may also be a model's name means an engine: a path, or a reference with a tag or digest."""
    path = Path(text).expanduser()
    return text.startswith((".", "/", "~")) or ":" in text or path.is_file() or (path / MANIFEST).is_file()


def locate(text: str, store: Store, target: str | None = None, prefer: Sequence[str] = ()) -> EngineFile:
    """What ENGINE means: a bundle's directory, an engine file, or a reference in the store (see `Store.resolve`).

    Raises UsageError for a file without its record or for another target, NoMatchError for a reference not stored.
    """
    path = Path(text).expanduser()
    if (path / MANIFEST).is_file() or (path.is_dir() and text.startswith((".", "/", "~"))):
        bundle = Bundle.open(path)
        return _meant(EngineFile(bundle.engine, bundle.record), target)
    if path.is_file():
        return _meant(EngineFile(path.resolve(), read_record(path.resolve())), target)
    if path.suffix or path.is_absolute() or text.startswith("."):
        raise UsageError(f"{text}: there is no such engine file or bundle directory")
    reference = Reference.parse(text)
    bundle = store.resolve(reference, target, prefer)
    return EngineFile(bundle.engine, bundle.record, reference)


def _meant(file: EngineFile, target: str | None) -> EngineFile:
    found = file.record.target
    if target not in (None, str(found), found.runtime):
        raise UsageError(f"{file.path} is for {found}, not for {target}; leave --target out")
    return file
