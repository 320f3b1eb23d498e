"""Which engines may be loaded, told from stores alone: no engine here is one that a runtime would take."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from small_bundles import make_bundle

from qzoo.errors import IntegrityError, UntrustedEngine
from qzoo.records import FileEntry, digest_of
from qzoo.store import Bundle, EngineFile, Reference, Store, locate
from qzoo.zoo.gate import BUILT_HERE, admit, answers, judge
from qzoo.zoo.keys import PrivateKey
from qzoo.zoo.sign import sign_stored
from qzoo.zoo.signature import EMPTY_BLOB, sign_child
from qzoo.zoo.trust import TrustStore

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()


@pytest.fixture
def builder(tmp_path) -> Store:
    """Where net:int8 was built for both runtimes."""
    store = Store(tmp_path / "builder")
    for runtime in ("openvino", "onnxruntime"):
        store.put("net", "int8", *make_bundle(runtime=runtime))
    return store


def received(builder: Store, place: str = "receiver") -> Store:
    """Another home with the builder's store, as a pull leaves it: nothing is said to have been built there."""
    home = builder.home.with_name(place)
    shutil.copytree(builder.home / "store", home / "store")
    return Store(home)


def engine(store: Store, text: str = "net:int8", target: str | None = "openvino") -> EngineFile:
    return locate(text, store, target)


def test_what_was_built_here_needs_no_key(builder):
    assert judge(engine(builder), builder) == BUILT_HERE
    assert admit(engine(builder), builder)
    assert not TrustStore(builder.home).path.exists()


def test_what_was_received_unsigned_is_refused_with_the_ways_out(builder):
    store = received(builder)
    with pytest.raises(UntrustedEngine, match="was not built here, and it has no signature") as raised:
        admit(engine(store), store)
    assert raised.value.exit_code == 6
    for way in ("--build", "--allow-untrusted"):
        assert way in str(raised.value)


def test_it_is_admitted_where_the_caller_allows_that_but_never_taken_for_ones_own(builder):
    store = received(builder)
    assert not admit(engine(store), store, allow_untrusted=True)
    assert not answers(engine(store), store)


def test_a_signature_counts_once_its_key_is_trusted(builder):
    sign_stored(Reference.parse("net"), builder, KEY)
    store = received(builder)
    with pytest.raises(
        UntrustedEngine, match=f"signed by key {KEY.public.id}, which isn't trusted here.*qzoo key trust"
    ):
        admit(engine(store), store)
    TrustStore(store.home).trust(KEY.public, "builder")
    assert not admit(engine(store), store)
    assert answers(engine(store), store)


def test_a_revoked_key_no_longer_counts(builder):
    sign_stored(Reference.parse("net"), builder, KEY)
    store = received(builder)
    TrustStore(store.home).trust(KEY.public, "builder")
    TrustStore(store.home).revoke("builder")
    with pytest.raises(UntrustedEngine, match="which is revoked"):
        admit(engine(store), store)


def test_a_revoked_key_does_not_take_away_what_was_built_here(builder):
    TrustStore(builder.home).trust(KEY.public, "builder")
    sign_stored(Reference.parse("net"), builder, KEY)
    TrustStore(builder.home).revoke("builder")
    assert admit(engine(builder), builder)


def test_a_signature_is_of_one_target_only(builder):
    sign_stored(Reference.parse("net"), builder, KEY, "openvino")
    store = received(builder)
    TrustStore(store.home).trust(KEY.public, "builder")
    admit(engine(store), store)
    with pytest.raises(UntrustedEngine, match="it has no signature"):
        admit(engine(store, target="onnxruntime"), store)


def test_a_copy_of_a_trusted_engine_is_trusted_wherever_it_lies(builder, tmp_path):
    sign_stored(Reference.parse("net"), builder, KEY)
    store = received(builder)
    TrustStore(store.home).trust(KEY.public, "builder")
    shutil.copytree(engine(store).path.parent, tmp_path / "copy")
    for place in (tmp_path / "copy", tmp_path / "copy/engine.blob"):
        assert not admit(locate(str(place), store), store)


def test_a_record_that_was_edited_is_not_the_trusted_one(builder, tmp_path):
    sign_stored(Reference.parse("net"), builder, KEY)
    store = received(builder)
    TrustStore(store.home).trust(KEY.public, "builder")
    copy = shutil.copytree(engine(store).path.parent, tmp_path / "copy")
    record = copy / "engine.blob.json"
    record.write_bytes(record.read_bytes().replace(b'"config": {}', b'"config": {"CACHE_DIR": "/tmp"}'))
    with pytest.raises(UntrustedEngine, match="no signature covers it"):
        admit(locate(str(copy), store), store)


def test_an_engine_signed_as_another_model_is_not_loaded_as_this_one(builder):
    ((entry, child), *_) = builder.named(Reference.parse("net"), "openvino")
    sibling = sign_child(child, KEY, name="cats")
    builder.attach(entry, [(sibling.descriptor, sibling.manifest)], EMPTY_BLOB)
    store = received(builder)
    TrustStore(store.home).trust(KEY.public, "builder")
    with pytest.raises(UntrustedEngine, match="it was signed as cats, not as net"):
        admit(engine(store), store)


def test_a_bundle_that_says_it_is_another_is_not_taken_for_that(builder, tmp_path):
    """Same id, name and target as one built here, other bytes: what anybody can publish."""
    manifest, files = make_bundle(runtime="openvino")
    forged = Store(tmp_path / "forger")
    record = files["engine.blob.json"].replace(b'"labels"', b'"labels" ')
    evil = {**files, "engine.blob.json": record}
    entry = FileEntry(sha256=digest_of(record), size_bytes=len(record))
    forged.put("net", "int8", replace(manifest, files={**manifest.files, "engine.blob.json": entry}), evil)
    store = received(forged)
    assert store.find(manifest.id).id == builder.find(manifest.id).id
    assert not answers(engine(store), store)
    shutil.copytree(builder.origins.folder, store.origins.folder)
    assert not answers(engine(store), store)


def test_two_machines_engines_in_one_tag_keep_their_own_signers(tmp_path):
    """A's engine and B's, each signed by its builder, then merged: neither key vouches for the other's."""
    made = {}
    for runtime, key in (("openvino", KEY), ("onnxruntime", OTHER)):
        made[runtime] = Store(tmp_path / runtime)
        made[runtime].put("net", "int8", *make_bundle(runtime=runtime))
        sign_stored(Reference.parse("net"), made[runtime], key)
    merged = received(made["openvino"])
    theirs = made["onnxruntime"]
    for blob in theirs.layout.stored():
        merged.layout.add_blob(blob.read_bytes(), "application/octet-stream")
    ((entry, child),) = theirs.named(Reference.parse("net"))
    merged.receive("net:int8", child, theirs.siblings(entry))
    TrustStore(merged.home).trust(KEY.public, "a")
    assert not admit(engine(merged), merged)
    with pytest.raises(UntrustedEngine, match=OTHER.public.id):
        admit(engine(merged, target="onnxruntime"), merged)
    TrustStore(merged.home).trust(OTHER.public, "b")
    assert not admit(engine(merged, target="onnxruntime"), merged)


def test_what_was_rebuilt_from_a_graph_may_be_loaded_but_answers_no_build(tmp_path):
    store = Store(tmp_path / "home")
    store.put("net", "int8", *make_bundle(), rebuilt=True)
    assert admit(engine(store), store)
    assert not answers(engine(store), store)
    store.put("net", "int8", *make_bundle())
    assert answers(engine(store), store)
    store.put("net", "int8", *make_bundle(), rebuilt=True)
    assert answers(engine(store), store)


def test_a_flipped_byte_in_a_stored_signature_is_damage(builder):
    sign_stored(Reference.parse("net"), builder, KEY, "openvino")
    store = received(builder)
    ((entry, _),) = store.named(Reference.parse("net"), "openvino")
    (sibling,) = store.siblings(entry)
    path = store.layout.blob_path(sibling.sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{path} was changed"):
        admit(engine(store), store)


def test_nobody_signs_what_they_neither_built_nor_trust(builder):
    store = received(builder)
    with pytest.raises(UntrustedEngine):
        sign_stored(Reference.parse("net"), store, KEY)
    sign_stored(Reference.parse("net"), store, KEY, allow_untrusted=True)
    TrustStore(store.home).trust(KEY.public, "me")
    assert not admit(engine(store), store)


def test_a_damaged_bundle_is_not_signed(builder):
    bundle = Bundle.open(engine(builder).path.parent)
    graph = bundle.path / "portable.onnx"
    graph.chmod(0o644)
    graph.write_bytes(b"another graph")
    with pytest.raises(IntegrityError, match=r"portable.onnx was changed"):
        sign_stored(Reference.parse("net"), builder, KEY, "openvino")
