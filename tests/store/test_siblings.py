"""What stands beside a bundle in its tag's index stays with it, and is no bundle."""

from __future__ import annotations

import hashlib

import pytest

from qzoo.errors import NoMatchError
from qzoo.store import Entry, Reference
from qzoo.store.layout import MANIFEST, SIGNS, Descriptor


def beside(entry: Entry, text: bytes = b"{}") -> tuple[Descriptor, bytes]:
    manifest = b'{"config":{"mediaType":"x","digest":"sha256:%b","size":2},"layers":[],"x":"%b"}' % (
        hashlib.sha256(b"{}").hexdigest().encode(),
        text,
    )
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    annotations = {SIGNS: f"sha256:{entry.sha256}"}
    return Descriptor(mediaType=MANIFEST, digest=digest, size=len(manifest), annotations=annotations), manifest


@pytest.fixture
def entries(store, put) -> dict[str, Entry]:
    put(runtime="openvino"), put(runtime="onnxruntime")
    return {entry.target.partition("/")[0]: entry for entry in store.entries()}


def test_a_sibling_is_listed_with_its_bundle_only_and_is_no_bundle(store, entries):
    one = beside(entries["openvino"])
    store.attach(entries["openvino"], [one], b"{}")
    assert store.siblings(entries["openvino"]) == [one[0]]
    assert store.siblings(entries["onnxruntime"]) == []
    assert list(store.entries()) == [entries["onnxruntime"], entries["openvino"]]
    assert list(store.verify()) == []


def test_attaching_the_same_twice_changes_nothing(store, entries):
    store.attach(entries["openvino"], [beside(entries["openvino"])], b"{}")
    before = store.layout.read_index()
    store.attach(entries["openvino"], [beside(entries["openvino"])], b"{}")
    assert store.layout.read_index() == before


def test_a_sibling_stays_when_another_target_is_put_and_goes_with_its_own(store, entries, put):
    for number, entry in enumerate(entries.values()):
        store.attach(entry, [beside(entry, b"%d" % number)], b"{}")
    put(runtime="openvino", seed=1)
    assert len(store.siblings(entries["onnxruntime"])) == 1
    assert store.siblings(entries["openvino"]) == []


def test_a_sibling_is_removed_with_its_bundle_and_its_blobs_by_gc(store, entries):
    store.attach(entries["openvino"], [beside(entries["openvino"])], b"{}")
    assert store.gc().blobs == 2  # the indexes of the tag before
    store.remove(Reference.parse("net"), target="openvino")
    store.gc()
    digest = beside(entries["openvino"])[0].sha256
    assert not store.layout.blob_path(digest).exists()
    assert [entry.target for entry in store.entries()] == [entries["onnxruntime"].target]


def test_nothing_is_attached_to_a_bundle_that_is_gone(store, entries):
    store.remove(Reference.parse("net"), target="openvino")
    with pytest.raises(NoMatchError, match="no longer in the store"):
        store.attach(entries["openvino"], [beside(entries["openvino"])], b"{}")


def test_what_holds_a_file_is_found_by_the_files_digest(store, entries, put):
    bundle = put(runtime="openvino")
    record = bundle.manifest.files["engine.blob.json"].sha256
    assert [entry.target for entry in store.holding(record)] == [str(bundle.record.target)]
    assert len(store.holding(bundle.manifest.files["portable.onnx"].sha256)) == 2
    assert store.holding("0" * 64) == []


def test_a_damaged_bundle_does_not_keep_others_from_being_found(store, entries, put, caplog):
    record = put(runtime="onnxruntime").manifest.files["engine.blob.json"].sha256
    path = store.layout.blob_path(entries["openvino"].sha256)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    assert [entry.target for entry in store.holding(record)] == [entries["onnxruntime"].target]
    assert f"{path} was changed" in caplog.text
