"""An OCI image layout directory (image-spec 1.1, image-layout.md): blobs by digest, and an index of what is there.

oci-layout                   {"imageLayoutVersion": "1.0.0"}
index.json                   one descriptor per name:tag, each of an image index
blobs/sha256/<hex>           image index: one manifest per target; manifest: one layer per file
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from qzoo.errors import IntegrityError
from qzoo.store.files import is_plain, is_sha256, verify_file
from qzoo.writing import write_file

T = TypeVar("T")

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BUNDLE = "application/vnd.qzoo.bundle.v1"
BUNDLE_CONFIG = "application/vnd.qzoo.manifest.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
TARGET, BUNDLE_ID = "dev.qzoo.target", "dev.qzoo.id"
SIGNS = "dev.qzoo.signs"
"""On what stands in an index beside a bundle, as its signatures do: the bundle's digest."""
_MEDIA = {
    ".onnx": "application/vnd.qzoo.onnx.v1",
    ".blob": "application/vnd.qzoo.engine.v1",
    ".json": "application/vnd.qzoo.record.v1+json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A reference to a blob (image-spec, descriptor.md)."""

    mediaType: str  # noqa: N815 - the specification's own name
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return self.digest.removeprefix("sha256:")

    @property
    def is_document(self) -> bool:
        """Whether it is an index or an image manifest, which refer to further blobs."""
        return self.mediaType in (INDEX, MANIFEST)

    def as_json(self) -> dict[str, object]:
        """Its fields in the order of the specification; annotations, which are sorted, only where there are any."""
        fields: dict[str, object] = {"mediaType": self.mediaType, "digest": self.digest, "size": self.size}
        return {**fields, "annotations": dict(sorted(self.annotations.items()))} if self.annotations else fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An image index."""

    manifests: list[Descriptor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest:
    """An image manifest: the parts that are read back."""

    config: Descriptor
    layers: list[Descriptor]


class Layout:
    """Reads and writes the layout in one directory. Nothing here takes locks."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def blobs(self) -> Path:
        """The directory of all blobs."""
        return self.root / "blobs" / "sha256"

    def blob_path(self, sha256: str) -> Path:
        """Where the blob with this digest lies."""
        return self.blobs / sha256

    def stored(self) -> Iterator[Path]:
        """Every blob that is there, whether or not anything leads to it."""
        return (path for path in self.blobs.glob("*") if is_sha256(path.name))

    def add_blob(self, data: bytes, media_type: str, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """Store a blob, unless it is there already; one that was edited is replaced. Raises StoreError.

        Bundles share a blob's content by hard links, so it may change after it was written. The new one is another
        file: what links to the edited one stays as it is.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.blob_path(sha256)
        if not _holds(path, data):
            write_file(path, data)
        return Descriptor(
            mediaType=media_type, digest=f"sha256:{sha256}", size=len(data), annotations=dict(annotations or {})
        )

    def add_json(self, value: Mapping[str, object], media_type: str, annotations: Mapping[str, str]) -> Descriptor:
        """Store a JSON document as a blob, its fields in the order they are given.

        That is the specification's: skopeo and others that write a document anew then write the same bytes.
        """
        return self.add_blob(msgspec.json.encode(value), media_type, annotations)

    def read_index(self, descriptor: Descriptor | None = None) -> Index:
        """The top index, or the image index that a descriptor names. Raises IntegrityError where it isn't valid."""
        if descriptor is not None:
            return self._document(descriptor, Index)
        path = self.root / "index.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return Index(manifests=[])
        return _decode(data, Index, path)

    def read(self, descriptor: Descriptor) -> bytes:
        """A stored blob's bytes, all in memory. Raises IntegrityError where they are not what their digest says."""
        path = self.blob_path(descriptor.sha256)
        verify_file(path, descriptor.sha256)
        return path.read_bytes()

    def below(self, descriptor: Descriptor) -> list[Descriptor]:
        """What an index or image manifest refers to; nothing for other blobs. Raises IntegrityError."""
        if descriptor.mediaType == INDEX:
            return self._document(descriptor, Index).manifests
        if descriptor.mediaType == MANIFEST:
            manifest = self._document(descriptor, ImageManifest)
            return [manifest.config, *manifest.layers]
        return []

    def reachable(self) -> Iterator[Descriptor]:
        """Every descriptor that index.json leads to, some more than once. Raises IntegrityError."""
        queue = list(self.read_index().manifests)
        for descriptor in queue:  # grows as documents are read
            yield descriptor
            queue += self.below(descriptor)

    def write_top(self, manifests: Iterable[Descriptor]) -> None:
        """Write oci-layout and index.json: what is not in it is not in the store."""
        write_file(self.root / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        write_file(self.root / "index.json", msgspec.json.encode(_index(manifests)))

    def add_index(self, manifests: Iterable[Descriptor], annotations: Mapping[str, str]) -> Descriptor:
        """Store an image index."""
        return self.add_json(_index(manifests), INDEX, annotations)

    def add_bundle(self, config: bytes, files: Mapping[str, bytes], annotations: Mapping[str, str]) -> Descriptor:
        """Store a bundle as an image manifest: `config` is its manifest.json, each file a layer."""
        layers = [
            self.add_blob(data, _MEDIA.get(Path(name).suffix, "application/octet-stream"), {TITLE: name})
            for name, data in sorted(files.items())
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BUNDLE,
            "config": self.add_blob(config, BUNDLE_CONFIG).as_json(),
            "layers": [layer.as_json() for layer in layers],
            "annotations": dict(sorted(annotations.items())),
        }
        return self.add_json(document, MANIFEST, annotations)

    def files_of(self, descriptor: Descriptor) -> dict[str, Descriptor]:
        """A stored bundle's files by name: its manifest.json is the config. Raises IntegrityError."""
        document = self._document(descriptor, ImageManifest)
        files = {"manifest.json": document.config}
        for layer in document.layers:
            name = layer.annotations.get(TITLE, "")
            if not is_plain(name) or name in files:
                what = "twice" if name in files else "outside its bundle"
                raise IntegrityError(
                    f"{self.blob_path(descriptor.sha256)} names the file {name!r} {what}; remove it and build again"
                )
            files[name] = layer
        return files

    def _document(self, descriptor: Descriptor, kind: type[T]) -> T:
        return _decode(self.read(descriptor), kind, self.blob_path(descriptor.sha256))


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:  # missing, or not to be read: then it is written
        return False


def _decode(data: bytes, kind: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise IntegrityError(f"{path} is not a valid {kind.__name__}: {error}; remove it and build again") from error


def _index(manifests: Iterable[Descriptor]) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one.as_json() for one in manifests]}
