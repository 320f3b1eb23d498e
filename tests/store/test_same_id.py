"""Two bundles may have one id: one build on two machines, or what somebody says is one. Each is opened as itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_bundles import make_bundle

from qzoo.errors import IntegrityError
from qzoo.records import FileEntry, digest_of
from qzoo.store import Reference, Store


@pytest.fixture
def theirs(tmp_path) -> Store:
    """Somebody's bundle with the id of ours, other measurements and another record of the engine."""
    manifest, files = make_bundle()
    record = files["engine.blob.json"].replace(b'"labels"', b'"labels" ')
    measurement = files["measurement.json"].replace(b'"data"', b'"data" ')
    entry = FileEntry(sha256=digest_of(record), size_bytes=len(record))
    store = Store(tmp_path / "theirs")
    changed = {**files, "engine.blob.json": record, "measurement.json": measurement}
    store.put("net", "int8", replace(manifest, files={**manifest.files, "engine.blob.json": entry}), changed)
    return store


def receive(store: Store, other: Store, name: str) -> None:
    for blob in other.layout.stored():
        store.layout.add_blob(blob.read_bytes(), "application/octet-stream")
    ((_, child),) = other.named(Reference.parse("net"))
    store.receive(name, child, [])


def test_a_received_bundle_with_the_id_of_one_that_is_there_leaves_that_as_it_is(store, put, theirs):
    put()
    _, files = make_bundle()
    receive(store, theirs, "copy:int8")
    for _ in range(2):
        ours = store.resolve(Reference.parse("net"))
        assert {name: (ours.path / name).read_bytes() for name in files} == files
        received = store.resolve(Reference.parse("copy"))
        assert received.id == ours.id
        assert (received.path / "engine.blob.json").read_bytes() != files["engine.blob.json"]


@pytest.mark.parametrize("text", ["\x1b[2Jgone", "a\x07", "\u0085next", "a\nb"])
@pytest.mark.parametrize("name", ["engine.blob.json", "measurement.json"])
def test_what_would_order_a_terminal_about_is_not_received(store, tmp_path, name, text):
    manifest, files = make_bundle()
    value = json.loads(files[name])
    value["labels" if name == "engine.blob.json" else "notes"] = ["a", text]
    data = json.dumps(value).encode()
    entries = manifest.files
    if name in entries:
        entries = {**entries, name: FileEntry(sha256=digest_of(data), size_bytes=len(data))}
    forger = Store(tmp_path / "forger")
    forger.put("net", "int8", replace(manifest, files=entries), {**files, name: data})
    with pytest.raises(IntegrityError, match=f"{name}, .* has control characters"):
        receive(store, forger, "net:int8")
    assert store.entries() == []


def test_json_nested_without_end_is_an_integrity_error(tmp_path, store, put):
    bundle = put()
    path = Path(bundle.path) / "measurement.json"
    path.unlink()
    path.write_bytes(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    with pytest.raises(IntegrityError, match="is not a valid Measurement"):
        _ = bundle.measurement
