"""A bundle's directory, wherever it lies and whoever made it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from small_bundles import make_bundle

from qzoo.errors import IntegrityError, UsageError
from qzoo.records import FileEntry, Manifest, encode
from qzoo.store import Bundle


@pytest.fixture
def directory(tmp_path) -> Path:
    """A bundle's directory, outside of any store."""
    place = tmp_path / "bundle"
    place.mkdir()
    manifest, files = make_bundle()
    for name, data in {**files, "manifest.json": encode(manifest)}.items():
        (place / name).write_bytes(data)
    return place


def rewrite(directory: Path, **changes: object) -> Manifest:
    manifest = replace(make_bundle()[0], **changes)
    (directory / "manifest.json").write_bytes(encode(manifest))
    return manifest


def test_a_bundle_gives_its_records_and_the_absolute_path_of_its_engine(directory, monkeypatch):
    monkeypatch.chdir(directory.parent)
    bundle = Bundle.open(Path("bundle"))
    assert bundle.manifest == make_bundle()[0]
    assert bundle.id == make_bundle()[0].id
    assert bundle.engine == directory / "engine.blob"
    assert bundle.record.sha256 == hashlib.sha256(bundle.engine.read_bytes()).hexdigest()
    assert bundle.measurement.verified == "passed"
    bundle.verify()


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_bundle_says_so(tmp_path, what):
    place = tmp_path / what
    if what == "empty":
        place.mkdir()
    elif what == "file":
        place.write_text("")
    with pytest.raises(UsageError, match=rf"{what} is not a bundle: it has no manifest\.json") as raised:
        Bundle.open(place)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 2}'])
def test_a_manifest_that_is_none_is_an_integrity_error(directory, text):
    (directory / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"manifest\.json is not a valid Manifest") as raised:
        Bundle.open(directory)
    assert raised.value.exit_code == 6


@pytest.mark.parametrize("name", ["../engine.blob", "/etc/passwd", "..", "sub/engine.blob"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(directory, name):
    files = {**make_bundle()[0].files, name: FileEntry(sha256="0" * 64, size_bytes=1)}
    rewrite(directory, files=files)
    with pytest.raises(IntegrityError, match="outside its bundle"):
        Bundle.open(directory)


def test_a_manifest_whose_engine_is_not_among_its_files_is_refused(directory):
    rewrite(directory, engine="../../elsewhere/engine.blob")
    with pytest.raises(IntegrityError, match="is not one of its files"):
        Bundle.open(directory)


@pytest.mark.parametrize("name", ["../../outside", "", "A" * 64, "/etc"])
def test_a_bundle_id_that_is_no_digest_is_refused(directory, name):
    rewrite(directory, id=name)
    with pytest.raises(IntegrityError, match="is no bundle id"):
        Bundle.open(directory)


@pytest.mark.parametrize("name", ["engine.blob", "engine.blob.json", "portable.onnx"])
def test_verifying_names_the_file_that_was_changed(directory, name):
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        IntegrityError, match=rf"{name} was changed: expected sha256:{hashlib.sha256(data).hexdigest()}"
    ):
        Bundle.open(directory).verify()


def test_verifying_names_the_file_that_is_missing(directory):
    (directory / "portable.onnx").unlink()
    with pytest.raises(IntegrityError, match=r"portable\.onnx can't be read"):
        Bundle.open(directory).verify()


def test_a_missing_measurement_is_an_integrity_error_and_the_rest_still_verifies(directory):
    (directory / "measurement.json").unlink()
    bundle = Bundle.open(directory)
    bundle.verify()
    with pytest.raises(IntegrityError, match=r"measurement\.json is missing; build or fetch"):
        _ = bundle.measurement


def test_a_missing_record_says_where_it_is_expected(directory):
    (directory / "engine.blob.json").unlink()
    with pytest.raises(UsageError, match=r"no record beside it; expected .*bundle/engine\.blob\.json"):
        _ = Bundle.open(directory).record


def test_a_record_that_is_none_is_an_integrity_error(directory):
    (directory / "engine.blob.json").write_text('{"model": "net"}')
    with pytest.raises(IntegrityError, match=r"engine\.blob\.json is not a valid EngineRecord"):
        _ = Bundle.open(directory).record
