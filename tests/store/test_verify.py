"""What was changed after it was stored is found, and storing it again heals it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

import pytest
from small_bundles import make_bundle

from qzoo.errors import IntegrityError
from qzoo.store import Damage, Reference


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip(path: Path, at: int = 50) -> None:
    """Change a byte in place, as a program does that opens an engine to write: its links see it too."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def tag_document(store) -> Path:
    """The only tag's list of targets."""
    (index,) = json.loads((store.home / "store" / "index.json").read_bytes())["manifests"]
    return store.layout.blob_path(index["digest"].removeprefix("sha256:"))


def test_a_store_as_it_was_written_has_no_damage(store, put):
    put(), put(runtime="onnxruntime"), put(seed=1)
    assert list(store.verify()) == []


def test_an_edited_engine_is_found_in_the_bundle_and_in_its_blob(store, put):
    bundle = put()
    expected = bundle.record.sha256
    flip(bundle.engine)
    found = sha256(bundle.engine)
    assert set(store.verify()) == {
        Damage(bundle.engine, expected, found),
        Damage(store.layout.blob_path(expected), expected, found),
    }


def test_a_file_that_was_replaced_in_a_bundle_leaves_its_blob_sound(store, put):
    bundle = put()
    (bundle.path / "measurement.json").unlink()
    (bundle.path / "measurement.json").write_bytes(b"{}")
    (damage,) = store.verify()
    assert damage.path == bundle.path / "measurement.json"
    assert damage.found == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("name", ["engine.blob", "measurement.json", "portable.onnx"])
def test_a_missing_file_of_a_bundle_has_no_digest(store, put, name):
    bundle = put()
    expected = sha256(bundle.path / name)
    (bundle.path / name).unlink()
    assert list(store.verify()) == [Damage(bundle.path / name, expected, None)]


def test_a_missing_blob_has_no_digest(store, put):
    bundle = put()
    blob = store.layout.blob_path(bundle.record.sha256)
    blob.unlink()
    assert list(store.verify()) == [Damage(blob, blob.name, None)]


def test_a_truncated_document_is_damage_once_and_what_it_led_to_is_not(store, put):
    put(), put(runtime="onnxruntime")
    store.gc()
    document = tag_document(store)
    document.write_bytes(document.read_bytes()[:-1])
    assert list(store.verify()) == [Damage(document, document.name, sha256(document))]


def test_a_blob_that_nothing_leads_to_is_checked_as_well(store, put):
    old = put().record.sha256
    put(seed=1)
    blob = store.layout.blob_path(old)
    flip(blob)
    assert blob in [damage.path for damage in store.verify()]


def test_a_deleted_directory_is_no_damage_as_it_is_checked_out_when_asked_for(store, put):
    shutil.rmtree(put().path)
    assert list(store.verify()) == []


def test_an_index_that_is_no_index_is_an_integrity_error(store, put):
    put()
    (store.home / "store" / "index.json").write_text("[]")
    with pytest.raises(IntegrityError, match=r"index\.json is not a valid Index"):
        list(store.verify())


@pytest.mark.parametrize("name", ["engine.blob", "engine.blob.json", "portable.onnx", "manifest.json"])
def test_putting_a_bundle_again_heals_a_file_edited_in_place(store, put, name):
    bundle = put()
    before = (bundle.path / name).read_bytes()
    flip(bundle.path / name, at=5)
    assert list(store.verify())
    again = put()
    assert (again.path / name).read_bytes() == before
    assert list(store.verify()) == []


@pytest.mark.parametrize("damage", ["truncated", "emptied", "missing"])
def test_putting_a_bundle_again_heals_every_blob(store, put, damage):
    put()
    for blob in store.layout.stored():
        if damage == "missing":
            blob.unlink()
        else:
            blob.write_bytes(blob.read_bytes()[: -1 if damage == "truncated" else 0])
    put().verify()
    assert list(store.verify()) == []


def test_a_healed_blob_is_another_file_so_that_nothing_writes_to_what_others_hold_open(store, put):
    bundle = put()
    with bundle.engine.open("rb") as held:
        flip(bundle.engine)
        edited = held.read()
        put()
        held.seek(0)
        assert held.read() == edited


def test_a_bundle_that_shared_the_edited_file_is_named_until_it_is_put_again(store, put):
    other = put("other")
    flip(put().path / "portable.onnx", at=5)
    put()
    assert [damage.path for damage in store.verify()] == [other.path / "portable.onnx"]
    put("other")
    assert list(store.verify()) == []


def test_putting_heals_a_damaged_list_of_targets_and_says_which_are_forgotten(store, put, caplog):
    put(runtime="openvino"), put(runtime="onnxruntime")
    tag_document(store).write_text("{}")
    with pytest.raises(IntegrityError):
        store.resolve(Reference.parse("net"), "openvino")
    with caplog.at_level(logging.WARNING, "qzoo"):
        healed = put(runtime="openvino")
    assert [bundle.id for _, bundle in store.list()] == [healed.id]
    (record,) = caplog.records
    assert record.getMessage().startswith("net:int8: its other targets are forgotten: ")


def test_putting_into_a_store_whose_index_is_damaged_is_refused_and_says_what_to_do(store, put):
    put()
    index = store.home / "store" / "index.json"
    index.write_text("{")
    with pytest.raises(IntegrityError, match=r"index\.json .*remove it and build again") as raised:
        put(seed=1)
    assert raised.value.exit_code == 6
    assert index.read_text() == "{"
    index.unlink()
    assert put().id == make_bundle()[0].id
    assert len(store.list()) == 1


def test_a_restored_directory_is_never_filled_from_an_edited_blob(store, put):
    bundle = put()
    flip(bundle.engine)
    shutil.rmtree(bundle.path)
    with pytest.raises(IntegrityError, match=f"expected sha256:{make_bundle()[0].files['engine.blob'].sha256}"):
        store.find(bundle.id)
    assert not bundle.path.exists()
