"""What is put into the store comes out of it again."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from small_bundles import make_bundle

from qzoo.errors import IntegrityError, NoMatchError, UsageError
from qzoo.records import decode
from qzoo.store import Reference, Store, locate
from qzoo.store.layout import BUNDLE_ID, REF_NAME, TARGET


def test_a_bundle_is_found_by_its_id_and_holds_its_files(store, put):
    manifest, files = make_bundle()
    put()
    found = store.find(manifest.id)
    assert found.manifest == manifest
    for name, data in files.items():
        assert (found.path / name).read_bytes() == data
    found.verify()
    assert store.find("0" * 64) is None


def test_an_empty_store_has_nothing(store):
    assert store.list() == []
    assert store.find("0" * 64) is None
    with pytest.raises(NoMatchError, match="nothing yet") as raised:
        store.resolve(Reference.parse("net"))
    assert raised.value.exit_code == 7


def test_two_targets_share_a_name_and_each_replaces_only_itself(store, put):
    put(runtime="openvino"), put(runtime="onnxruntime")
    newer = put(runtime="openvino", seed=1)
    assert [name for name, _ in store.list()] == ["net:int8", "net:int8"]
    assert {bundle.id for _, bundle in store.list()} == {newer.id, make_bundle(runtime="onnxruntime")[0].id}


@pytest.mark.parametrize(
    ("target", "runtime"), [("onnxruntime", "onnxruntime"), ("openvino/avx512_vnni+bf16", "openvino")]
)
def test_a_target_chooses_among_several(store, put, target, runtime):
    put(runtime="openvino"), put(runtime="onnxruntime")
    assert store.resolve(Reference.parse("net:int8"), target).record.target.runtime == runtime


def test_a_preference_chooses_among_several_and_without_one_all_are_named(store, put):
    put(runtime="openvino"), put(runtime="onnxruntime")
    reference = Reference.parse("net")
    assert store.resolve(reference, prefer=["onnxruntime", "openvino"]).record.target.runtime == "onnxruntime"
    with pytest.raises(NoMatchError, match=r"openvino.*--target"):
        store.resolve(reference)


def test_a_digest_decides(store, put):
    put(runtime="openvino"), put(runtime="onnxruntime")
    for child in (child for _, child in store._children()):
        found = store.resolve(Reference.parse(f"net:int8@{child.digest}"))
        assert found.id == child.annotations["dev.qzoo.id"]
    with pytest.raises(NoMatchError):
        store.resolve(Reference.parse("net:int8@sha256:" + "0" * 64))


def test_what_is_not_there_lists_what_is(store, put):
    put("net")
    with pytest.raises(NoMatchError, match=r"other is not in the store; there is net:int8 \(openvino/"):
        store.resolve(Reference.parse("other"))


def test_a_deleted_directory_is_checked_out_again(store, put):
    bundle = put()
    shutil.rmtree(bundle.path)
    again = store.find(bundle.id)
    again.verify()
    assert again.manifest == bundle.manifest


def test_files_that_are_not_the_manifests_are_refused_and_nothing_is_visible(store):
    manifest, files = make_bundle()
    with pytest.raises(IntegrityError, match=r"engine\.blob has sha256:"):
        store.put("net", "int8", manifest, {**files, "engine.blob": b"other"})
    with pytest.raises(IntegrityError, match="only one of"):
        store.put("net", "int8", manifest, {**files, "extra.txt": b""})
    assert store.list() == []


def test_an_exported_bundle_stands_by_itself(store, put, tmp_path):
    bundle = put()
    store.export(bundle, tmp_path / "copy")
    shutil.rmtree(store.home)
    found = locate(str(tmp_path / "copy"), store)
    assert found.path.read_bytes() == make_bundle()[1]["engine.blob"]
    assert found.record.target.runtime == "openvino"


def test_exporting_replaces_a_bundle_but_nothing_else(store, put, tmp_path):
    store.export(put(), tmp_path / "copy")
    store.export(put(seed=1), tmp_path / "copy")
    assert (tmp_path / "copy" / "engine.blob").read_bytes() == make_bundle(seed=1)[1]["engine.blob"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not a bundle"):
        store.export(put(), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_an_engine_file_is_located_by_its_record_and_one_without_is_refused(store, put, tmp_path):
    bundle = put()
    assert locate(str(bundle.engine), store).record == bundle.record
    shutil.copy(bundle.engine, tmp_path / "alone.blob")
    with pytest.raises(UsageError, match="no record beside it"):
        locate(str(tmp_path / "alone.blob"), store)
    with pytest.raises(UsageError, match="no such engine file"):
        locate("./gone.blob", store)


def test_the_same_bundles_give_the_same_index(tmp_path):
    indexes = []
    for order in ((0, 1, 2), (2, 0, 1)):
        store = Store(tmp_path / "".join(map(str, order)))
        for index in order:
            manifest, files = make_bundle(f"net{index}", "openvino" if index else "onnxruntime")
            store.put(f"net{index}", "int8", manifest, files)
        indexes.append((store.home / "store" / "index.json").read_bytes())
    assert indexes[0] == indexes[1]


def test_the_store_is_an_oci_image_layout(store, put):
    put("net"), put("net", runtime="onnxruntime"), put("other")
    root = store.home / "store"
    assert json.loads((root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}

    def walk(descriptor: dict[str, object]) -> int:
        data = (root / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert descriptor["size"] == len(data)
        if "image" not in descriptor["mediaType"]:
            return 1
        document = json.loads(data)
        assert document["schemaVersion"] == 2
        below = [*document.get("manifests", ()), *document.get("layers", ())]
        below += [document["config"]] if "config" in document else []
        return 1 + sum(map(walk, below))

    index = json.loads((root / "index.json").read_text())
    names = {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]}
    assert names == {"net:int8", "other:int8"}
    assert sum(map(walk, index["manifests"])) > 10


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_copies_the_layout_with_its_digests_unchanged(store, put, tmp_path):
    put(runtime="openvino"), put(runtime="onnxruntime")
    source = f"oci:{store.home / 'store'}:net:int8"
    raw = subprocess.run(["skopeo", "inspect", "--raw", source], check=True, capture_output=True).stdout
    copy = ["skopeo", "copy", "--all", "--preserve-digests", "--quiet", source, f"oci:{tmp_path / 'copy'}:net:int8"]
    subprocess.run(copy, check=True, capture_output=True)
    digest = hashlib.sha256(raw).hexdigest()
    assert (tmp_path / "copy" / "blobs" / "sha256" / digest).read_bytes() == raw
    ours = {path.name for path in (store.home / "store" / "blobs" / "sha256").iterdir()}
    theirs = {path.name for path in (tmp_path / "copy" / "blobs" / "sha256").iterdir()}
    assert theirs <= ours


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_skopeo_reads_the_tag_as_an_index_with_one_manifest_for_each_target(store, put):
    put(runtime="openvino"), put(runtime="onnxruntime")
    call = ["skopeo", "inspect", "--raw", f"oci:{store.home / 'store'}:net:int8"]
    index = json.loads(subprocess.run(call, check=True, capture_output=True).stdout)
    assert [entry["annotations"]["dev.qzoo.target"].partition("/")[0] for entry in index["manifests"]] == [
        "onnxruntime",
        "openvino",
    ]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_a_layout_that_skopeo_copied_is_a_store(store, put, tmp_path):
    bundle = put(runtime="openvino")
    put(runtime="onnxruntime")
    copied = Store(tmp_path / "copied")
    copied.layout.root.mkdir(parents=True)
    names = (f"oci:{root / 'store'}:net:int8" for root in (store.home, copied.home))
    subprocess.run(["skopeo", "copy", "--all", "--preserve-digests", "--quiet", *names], check=True)
    found = copied.resolve(Reference.parse("net"), "openvino")
    found.verify()
    assert found.manifest == bundle.manifest
    assert found.measurement == bundle.measurement
    assert list(copied.verify()) == []


def test_a_bundle_stored_under_two_names_is_one_directory(store):
    manifest, files = make_bundle()
    paths = {store.put(name, "int8", manifest, files).path for name in ("net", "alias")}
    assert len(paths) == 1
    assert [(name, bundle.id) for name, bundle in store.list()] == [
        ("alias:int8", manifest.id),
        ("net:int8", manifest.id),
    ]


@pytest.mark.parametrize("changes", [{"id": "../../escaped"}, {"engine": "../escaped"}])
def test_a_manifest_that_points_outside_is_refused_before_anything_is_written(store, changes):
    manifest, files = make_bundle()
    with pytest.raises(IntegrityError):
        store.put("net", "int8", replace(manifest, **changes), files)
    assert not store.home.exists()


def test_a_file_named_outside_is_refused_before_anything_is_written(store):
    manifest, files = make_bundle()
    forged = replace(manifest, files={**manifest.files, "../escaped": manifest.files["engine.blob"]})
    with pytest.raises(IntegrityError, match="outside its bundle"):
        store.put("net", "int8", forged, {**files, "../escaped": files["engine.blob"]})
    assert not store.home.exists()


def forge(store: Store, annotations: dict[str, str]) -> None:
    """Rewrite the only bundle's annotations in its tag's list, with the digests that fit."""
    ((_, child),) = store._children()
    index = store.layout.add_index([replace(child, annotations=annotations)], {REF_NAME: "net:int8"})
    store.layout.write_top([index])


def test_a_forged_bundle_id_writes_nothing_outside(store, put):
    put()
    forge(store, {BUNDLE_ID: "../../escaped", TARGET: "openvino/avx2"})
    before = set(store.home.parent.rglob("*"))
    with pytest.raises(IntegrityError, match=r"'\.\./\.\./escaped', which is no bundle id") as raised:
        store.list()
    assert raised.value.exit_code == 6
    assert set(store.home.parent.rglob("*")) == before


def test_what_is_listed_without_a_target_or_an_id_is_an_integrity_error(store, put):
    put()
    forge(store, {BUNDLE_ID: "0" * 64})
    with pytest.raises(IntegrityError, match="is no bundle; remove it"):
        store.list()


def test_an_edited_engine_is_noticed_and_both_digests_are_named(put):
    bundle = put()
    edited = bytearray(bundle.engine.read_bytes())
    edited[50] ^= 1
    bundle.engine.unlink()
    bundle.engine.write_bytes(edited)
    with pytest.raises(IntegrityError, match=f"expected sha256:{bundle.record.sha256}, found sha256:") as raised:
        bundle.verify()
    assert raised.value.exit_code == 6


@pytest.mark.parametrize("damage", ["engine.blob", "measurement.json", "engine.blob.json"])
def test_a_missing_file_is_named(put, damage):
    bundle = put()
    (bundle.path / damage).unlink()
    with pytest.raises((IntegrityError, UsageError), match=damage):
        bundle.verify() if damage == "engine.blob" else (bundle.record, bundle.measurement)


def test_an_index_that_is_no_index_is_an_integrity_error(store, put):
    put()
    (store.home / "store" / "index.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"index\.json"):
        store.list()


def test_a_missing_blob_is_named_when_it_is_needed(store, put):
    bundle = put()
    digest = bundle.record.sha256
    shutil.rmtree(bundle.path)
    store.layout.blob_path(digest).unlink()
    with pytest.raises(IntegrityError, match=digest):
        store.find(bundle.id)


def test_home_is_where_the_environment_says():
    assert Store.default({"QZOO_HOME": "/some/where"}).home == Path("/some/where")
    assert Store.default({}).home.name == "qzoo"


def test_the_manifest_reads_back_as_it_was_written(put):
    bundle = put()
    assert decode((bundle.path / "manifest.json").read_bytes(), type(bundle.manifest)) == make_bundle()[0]
