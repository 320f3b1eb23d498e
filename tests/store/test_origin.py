"""What was built here is known by the digest of its record, and by nothing that a bundle says of itself."""

from __future__ import annotations

import shutil

from small_bundles import make_bundle

from qzoo.records import digest_of
from qzoo.store import Reference, Store, locate


def test_what_was_put_was_built_here_and_so_were_its_copies(store, put, tmp_path):
    bundle = put()
    shutil.copytree(bundle.path, tmp_path / "copy")
    for place in (bundle.path, tmp_path / "copy", tmp_path / "copy/engine.blob"):
        assert locate(str(place), store).record_sha256 in store.origins


def test_an_engine_or_record_that_was_edited_was_not_built_here(store, put, tmp_path):
    shutil.copytree(put().path, tmp_path / "copy")
    record = tmp_path / "copy/engine.blob.json"
    record.write_bytes(record.read_bytes().replace(b'"labels"', b'"labels" '))
    assert locate(str(tmp_path / "copy"), store).record_sha256 not in store.origins


def test_another_home_built_nothing_of_it(put, tmp_path):
    bundle = put()
    assert locate(str(bundle.path), Store(tmp_path / "other")).record_sha256 not in Store(tmp_path / "other").origins


def test_what_was_built_here_stays_so_when_the_store_forgets_it(store, put, tmp_path):
    shutil.copytree(put().path, tmp_path / "copy")
    store.remove(Reference.parse("net"))
    store.gc()
    assert locate(str(tmp_path / "copy"), store).record_sha256 in store.origins


def test_no_path_is_taken_for_a_digest(store, put):
    put()
    assert digest_of(make_bundle()[1]["engine.blob.json"]) in store.origins
    assert "" not in store.origins
    assert "../built" not in store.origins
