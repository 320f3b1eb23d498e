"""A bundle: a directory with an engine and all that belongs to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qzoo.errors import IntegrityError, UsageError
from qzoo.records import EngineRecord, LayerTable, Manifest, Measurement, decode
from qzoo.store.files import is_plain, is_sha256, verify_file

MANIFEST, MEASUREMENT, LAYERS = "manifest.json", "measurement.json", "layers.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory with manifest.json, measurement.json, the engine and its record, the graphs and the calibration."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Bundle:
        """Open a bundle's directory, anywhere. Raises UsageError, or IntegrityError where it is damaged."""
        path = path.expanduser().resolve()
        if not (path / MANIFEST).is_file():
            raise UsageError(f"{path} is not a bundle: it has no {MANIFEST}")
        manifest = decode((path / MANIFEST).read_bytes(), Manifest, path / MANIFEST)
        check_names(manifest, path / MANIFEST)
        return cls(path, manifest)

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def engine(self) -> Path:
        """The engine file, an absolute path."""
        return self.path / self.manifest.engine

    @property
    def record(self) -> EngineRecord:
        """The engine's sidecar. Raises IntegrityError."""
        return read_record(self.engine)

    @property
    def measurement(self) -> Measurement:
        """What was measured when it was built. Raises IntegrityError."""
        path = self.path / MEASUREMENT
        try:
            return decode(path.read_bytes(), Measurement, path)
        except FileNotFoundError:
            raise IntegrityError(f"{path} is missing; build or fetch the bundle again") from None

    @property
    def layers(self) -> LayerTable | None:
        """The engine's layers; None where its runtime doesn't tell them. Raises IntegrityError."""
        if LAYERS not in self.manifest.files:
            return None
        verify_file(self.path / LAYERS, self.manifest.files[LAYERS].sha256)
        return decode((self.path / LAYERS).read_bytes(), LayerTable, self.path / LAYERS)

    def verify(self) -> None:
        """Check every file against the manifest. Raises IntegrityError for the first that differs or is missing."""
        for name, entry in sorted(self.manifest.files.items()):
            verify_file(self.path / name, entry.sha256)


def check_names(manifest: Manifest, source: str | Path) -> None:
    """Raise IntegrityError where a manifest, which may be anybody's, would name a place outside its bundle."""
    if not is_sha256(manifest.id):
        raise IntegrityError(f"{source}: {manifest.id!r} is no bundle id; build or fetch it again")
    if manifest.engine not in manifest.files:
        raise IntegrityError(f"{source}: the engine {manifest.engine!r} is not one of its files; fetch it again")
    for name in manifest.files:
        if not is_plain(name):
            raise IntegrityError(f"{source} names the file {name!r} outside its bundle; fetch it again")


def sidecar(engine: Path) -> Path:
    """Where an engine's record lies."""
    return engine.with_name(f"{engine.name}.json")


def read_record(engine: Path) -> EngineRecord:
    """An engine's record, from beside it. Raises UsageError where there is none, or IntegrityError."""
    path = sidecar(engine)
    if not path.is_file():
        raise UsageError(f"{engine} has no record beside it; expected {path}")
    return decode(path.read_bytes(), EngineRecord, path)
