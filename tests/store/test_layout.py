"""The documents of the image layout, and what a forged one may not do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from qzoo.errors import IntegrityError, StoreError
from qzoo.store.layout import BUNDLE_CONFIG, INDEX, MANIFEST, REF_NAME, TITLE, Descriptor, Layout


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "store")


def image(layout: Layout, *layers: dict[str, object], **changes: object) -> Descriptor:
    """An image manifest as somebody else might write it."""
    config = layout.add_blob(b"{}", BUNDLE_CONFIG).as_json()
    return layout.add_json({"schemaVersion": 2, "config": config, "layers": layers, **changes}, MANIFEST, {})


def layer(layout: Layout, title: str, data: bytes = b"data") -> dict[str, object]:
    return layout.add_blob(data, "application/octet-stream", {TITLE: title}).as_json()


def test_a_blob_lies_under_the_digest_of_its_bytes(layout):
    descriptor = layout.add_blob(b"some bytes", "text/plain")
    digest = hashlib.sha256(b"some bytes").hexdigest()
    assert (layout.root / "blobs" / "sha256" / digest).read_bytes() == b"some bytes"
    assert descriptor.as_json() == {"mediaType": "text/plain", "digest": f"sha256:{digest}", "size": 10}


def test_a_blob_that_is_there_is_not_written_again(layout):
    path = layout.blob_path(layout.add_blob(b"some bytes", "text/plain").sha256)
    before = path.stat().st_ino
    layout.add_blob(b"some bytes", "text/plain")
    assert path.stat().st_ino == before


def test_a_blob_of_the_same_size_with_other_bytes_is_replaced_by_a_new_file(layout, tmp_path):
    path = layout.blob_path(layout.add_blob(b"some bytes", "text/plain").sha256)
    (tmp_path / "link").hardlink_to(path)
    path.write_bytes(b"same bytes")
    layout.add_blob(b"some bytes", "text/plain")
    assert path.read_bytes() == b"some bytes"
    assert (tmp_path / "link").read_bytes() == b"same bytes"


def test_something_else_in_a_blobs_place_is_an_error_with_a_way_out(layout):
    layout.blob_path(hashlib.sha256(b"some bytes").hexdigest()).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"can't be written: .*QZOO_HOME"):
        layout.add_blob(b"some bytes", "text/plain")


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("lowered.onnx", "application/vnd.qzoo.onnx.v1"),
        ("engine.blob", "application/vnd.qzoo.engine.v1"),
        ("measurement.json", "application/vnd.qzoo.record.v1+json"),
        ("NOTICE", "application/octet-stream"),
    ],
)
def test_a_layers_media_type_follows_its_suffix(layout, name, media):
    bundle = layout.add_bundle(b"{}", {name: b"data"}, {})
    document = json.loads(layout.blob_path(bundle.sha256).read_bytes())
    assert [one["mediaType"] for one in document["layers"]] == [media]
    assert document["layers"][0]["annotations"] == {"org.opencontainers.image.title": name}


def test_a_bundles_files_are_read_back_with_the_config_as_its_manifest(layout):
    bundle = layout.add_bundle(b"config", {"b": b"2", "a": b"1"}, {})
    expected = {"manifest.json": b"config", "a": b"1", "b": b"2"}
    assert {name: one.sha256 for name, one in layout.files_of(bundle).items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in expected.items()
    }


def test_a_layout_without_an_index_is_empty(layout):
    assert layout.read_index().manifests == []
    assert list(layout.reachable()) == []
    assert list(layout.stored()) == []


def test_everything_below_the_index_is_reached(layout):
    bundles = [layout.add_bundle(str(number).encode(), {"file": b"shared"}, {}) for number in range(2)]
    tag = layout.add_index(bundles, {REF_NAME: "net:int8"})
    layout.write_top([tag])
    layout.add_blob(b"nothing leads here", "text/plain")
    reached = {descriptor.sha256 for descriptor in layout.reachable()}
    data = {hashlib.sha256(one).hexdigest() for one in (b"0", b"1", b"shared")}
    assert reached == {tag.sha256, *(bundle.sha256 for bundle in bundles), *data}
    assert {path.name for path in layout.stored()} - reached == {hashlib.sha256(b"nothing leads here").hexdigest()}


@pytest.mark.parametrize("title", ["../../escaped", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "nul\0byte"])
def test_a_layer_that_would_leave_its_bundle_is_refused(layout, title):
    with pytest.raises(IntegrityError, match="outside its bundle") as raised:
        layout.files_of(image(layout, layer(layout, title)))
    assert raised.value.exit_code == 6


def test_a_layer_without_a_title_is_refused(layout):
    untitled = layout.add_blob(b"data", "text/plain").as_json()
    with pytest.raises(IntegrityError, match="outside its bundle"):
        layout.files_of(image(layout, untitled))


@pytest.mark.parametrize("title", ["manifest.json", "twin"])
def test_a_name_that_is_given_twice_is_refused(layout, title):
    with pytest.raises(IntegrityError, match=f"'{title}' twice"):
        layout.files_of(image(layout, layer(layout, "twin"), layer(layout, title, b"other")))


@pytest.mark.parametrize("kind", [INDEX, MANIFEST])
def test_a_document_that_was_edited_is_not_read(layout, kind):
    descriptor = layout.add_index([], {}) if kind == INDEX else image(layout)
    path = layout.blob_path(descriptor.sha256)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(IntegrityError, match=f"expected {descriptor.digest}, found sha256:{found}"):
        layout.below(descriptor)


@pytest.mark.parametrize("document", [{}, {"layers": 1}, {"config": {}, "layers": []}, []])
def test_a_document_of_the_right_digest_that_is_no_manifest_is_refused(layout, document):
    descriptor = layout.add_json(document, MANIFEST, {})
    with pytest.raises(IntegrityError, match="is not a valid ImageManifest"):
        layout.files_of(descriptor)


def test_a_digest_that_is_a_path_reads_no_other_file(layout, tmp_path):
    (tmp_path / "secret").write_text('{"manifests": []}')
    layout.root.mkdir()
    forged = Descriptor(mediaType=INDEX, digest="sha256:../../../secret", size=17)
    with pytest.raises(IntegrityError):
        layout.read_index(forged)


def test_fields_that_a_later_version_adds_are_no_error(layout):
    document = image(layout, layer(layout, "file"), subject={"digest": "sha256:0"}, newField=1)
    assert set(layout.files_of(document)) == {"manifest.json", "file"}


def test_the_index_is_written_after_the_file_that_makes_the_directory_a_layout(layout, monkeypatch):
    written = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (written.append(target.name), replace(self, target))[1])
    layout.write_top([])
    assert written == ["oci-layout", "index.json"]
