"""An OCI image layout directory (image-spec 1.1, image-layout.md): blobs by digest, and an index of what is there.

oci-layout                   {"imageLayoutVersion": "1.0.0"}
index.json                   one descriptor per name:tag, each of an image index
blobs/sha256/<hex>           image index: one manifest per target; manifest: one layer per file
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from qzoo.errors import IntegrityError
from qzoo.store.files import verify_file, write_file

T = TypeVar("T")

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BUNDLE = "application/vnd.qzoo.bundle.v1"
BUNDLE_CONFIG = "application/vnd.qzoo.manifest.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
TARGET, BUNDLE_ID = "dev.qzoo.target", "dev.qzoo.id"
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

    def blob_path(self, sha256: str) -> Path:
        """Where the blob with this digest lies."""
        return self.root / "blobs" / "sha256" / sha256

    def add_blob(self, data: bytes, media_type: str, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """Store a blob, unless it is there already. Raises StoreError."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.blob_path(sha256)
        if not path.is_file() or path.stat().st_size != len(data):
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
        path = self.root / "index.json" if descriptor is None else self.blob_path(descriptor.sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            if descriptor is None:
                return Index(manifests=[])
            raise IntegrityError(f"{path} is missing; build or fetch the bundle again") from None
        return _decode(data, Index, path)

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
        path = self.blob_path(descriptor.sha256)
        verify_file(path, descriptor.sha256)
        document = _decode(path.read_bytes(), ImageManifest, path)
        titled = {layer.annotations.get(TITLE, ""): layer for layer in document.layers}
        if any(not name or Path(name).name != name for name in titled):
            raise IntegrityError(f"{path} names a file outside its bundle; remove it and build again")
        return {"manifest.json": document.config, **titled}


def _decode(data: bytes, kind: type[T], path: Path) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise IntegrityError(f"{path} is not a valid {kind.__name__}: {error}; remove it and build again") from error


def _index(manifests: Iterable[Descriptor]) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one.as_json() for one in manifests]}
