"""What no tag reaches goes, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from small_bundles import make_bundle

from qzoo.errors import IntegrityError, NoMatchError, StoreError
from qzoo.store import GcReport, Reference, Store
from qzoo.writing import new_file

NOTHING = GcReport(blobs=0, bundles=0, temporaries=0, freed_bytes=0)


def blobs(store: Store) -> set[str]:
    return {path.name for path in (store.home / "store").glob("blobs/sha256/*")}


def named_in(store: Store) -> set[str]:
    """The digests that index.json leads to, found by following every document's own words."""

    def follow(descriptor: dict) -> set[str]:
        digest = descriptor["digest"].removeprefix("sha256:")
        if "image" not in descriptor["mediaType"]:
            return {digest}
        document = json.loads((store.home / "store" / "blobs" / "sha256" / digest).read_bytes())
        below = [*document.get("manifests", ()), *document.get("layers", ())]
        below += [document["config"]] if "config" in document else []
        return {digest}.union(*map(follow, below))

    index = json.loads((store.home / "store" / "index.json").read_bytes())
    return set().union(*map(follow, index["manifests"]))


def files(store: Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in store.home.rglob("*") if path.is_file()}


def bytes_on_disk(store: Store) -> int:
    """Each file once, however many links it has."""
    stats = [path.stat() for path in store.home.rglob("*") if path.is_file()]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())


def test_a_store_in_which_all_is_reached_is_left_as_it_is(store, put):
    put(), put(runtime="onnxruntime")
    store.gc()  # each put replaced a list of targets
    before = files(store)
    assert store.gc() == NOTHING
    assert files(store) == before


def test_an_empty_store_has_nothing_to_remove(store):
    assert store.gc() == NOTHING
    assert store.list() == []


def test_a_replaced_bundle_is_removed_and_what_others_share_with_it_stays(store, put):
    old, other = put(), put("other")
    new = put(seed=1)
    report = store.gc()
    assert report.bundles == 1
    assert not old.path.exists()
    assert blobs(store) == named_in(store)
    for bundle in (new, other):
        bundle.verify()
    assert list(store.verify()) == []


def test_the_report_counts_the_bytes_that_the_disk_has_more(store, put):
    put(), put(seed=1), put("other")
    (store.home / "bundles" / ".tmp-left").mkdir()
    (store.home / "bundles" / ".tmp-left" / "engine.blob").write_bytes(bytes(1000))
    before = bytes_on_disk(store)
    report = store.gc()
    assert report.temporaries == 1
    assert report.freed_bytes == before - bytes_on_disk(store) > 1000


def test_a_removed_bundle_is_no_longer_named_and_its_files_go_with_gc(store, put):
    bundle = put()
    store.remove(Reference.parse("net"))
    assert store.list() == []
    assert bundle.engine.is_file()
    store.gc()
    assert not bundle.path.exists()
    assert blobs(store) == set()


def test_removing_for_one_target_leaves_the_others(store, put):
    put(runtime="openvino"), put("other")
    kept = put(runtime="onnxruntime")
    store.remove(Reference.parse("net:int8"), target="openvino")
    assert [(name, bundle.id) for name, bundle in store.list() if name == "net:int8"] == [("net:int8", kept.id)]
    assert "other:int8" in [name for name, _ in store.list()]


def test_a_digest_says_which_bundle_is_removed(store, put):
    kept = put(runtime="openvino")
    put(runtime="onnxruntime")
    index = json.loads((store.home / "store" / "index.json").read_bytes())["manifests"][0]
    children = json.loads(store.layout.blob_path(index["digest"].removeprefix("sha256:")).read_bytes())["manifests"]
    (gone,) = (child for child in children if child["annotations"]["dev.qzoo.target"].startswith("onnxruntime"))
    store.remove(Reference.parse(f"net@{gone['digest']}"))
    assert [bundle.id for _, bundle in store.list()] == [kept.id]


@pytest.mark.parametrize(("reference", "target"), [("other", None), ("net:fp32", None), ("net", "tensorrt")])
def test_removing_what_is_not_there_lists_what_is(store, put, reference, target):
    bundle = put()
    with pytest.raises(NoMatchError, match=r"is not in the store; there is net:int8 \(openvino/") as raised:
        store.remove(Reference.parse(reference), target=target)
    assert raised.value.exit_code == 7
    assert store.find(bundle.id) is not None


def test_files_that_are_not_the_stores_are_left_alone(store, put):
    put()
    mine = [
        store.home / "bundles" / "notes.txt",
        store.home / "bundles" / "experiment" / "manifest.json",
        store.home / "store" / "blobs" / "sha256" / "README",
        store.home / "cache" / "download",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert store.gc() == NOTHING
    assert [path.read_text() for path in mine] == ["mine"] * len(mine)


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_nothing_is_removed_where_a_document_of_the_index_is_damaged(store, put, damage):
    put("whole"), put(seed=1), put(seed=2)
    index = json.loads((store.home / "store" / "index.json").read_bytes())["manifests"][0]
    document = store.layout.blob_path(index["digest"].removeprefix("sha256:"))
    document.write_bytes(document.read_bytes()[:-1]) if damage == "truncate" else document.unlink()
    before = files(store)
    with pytest.raises(IntegrityError, match=document.name) as raised:
        store.gc()
    assert raised.value.exit_code == 6
    assert files(store) == before


WRITER = """
import os, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from small_bundles import make_bundle
from qzoo.store import Store

link = os.link
def held(*args):
    print("half-way", flush=True)
    sys.stdin.readline()
    os.link = link
    return link(*args)
os.link = held
manifest, files = make_bundle(seed=1)
Store(Path(sys.argv[1])).put("net", "int8", manifest, files)
"""


@pytest.fixture
def writer(store):
    """A process that has written the blobs of a bundle and not yet its directory, until it reads a line."""
    code = WRITER.format(folder=str(Path(__file__).parents[1]))
    with subprocess.Popen(
        [sys.executable, "-c", code, store.home], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "half-way\n"
        yield process
        process.kill()


def left_behind(store: Store) -> list[Path]:
    return list(store.home.rglob(".tmp-*"))


def test_what_a_living_process_has_half_written_is_not_removed(store, put, writer, monkeypatch):
    put_id = make_bundle(seed=1)[0].id
    with monkeypatch.context() as impatient:
        impatient.setattr("qzoo.store.FileLock", partial(FileLock, timeout=0))
        with pytest.raises(StoreError):
            store.gc()
    assert left_behind(store)
    writer.communicate("go on\n")
    assert writer.returncode == 0
    store.gc()
    assert [bundle.id for _, bundle in store.list()] == [put_id]
    assert list(store.verify()) == []


def test_what_a_killed_process_left_half_written_is_removed(store, writer):
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert left_behind(store)
    report = store.gc()
    assert report.temporaries >= 1
    assert report.blobs >= 4
    assert left_behind(store) == []
    assert blobs(store) == set()


def test_in_the_cache_goes_what_a_killed_process_left_and_stays_what_a_living_one_writes(store):
    whole, dead = store.cache / "net-0123abcd.pth", store.cache / "images" / ".tmp-dead"
    dead.parent.mkdir(parents=True)
    whole.write_bytes(b"weights")
    dead.write_bytes(b"half")
    with new_file(store.cache / "images" / "new.npz") as living:
        assert store.gc(dry_run=True).freed_bytes == len(b"half")
        assert store.gc().temporaries == 1
        assert [path.exists() for path in (whole, dead, living)] == [True, False, True]


def test_reading_waits_for_no_writer_but_checking_out_does(store, put, monkeypatch):
    present, deleted = put(), put("other")
    shutil.rmtree(deleted.path)
    monkeypatch.setattr("qzoo.store.FileLock", partial(FileLock, timeout=0))
    with FileLock(store.home / "store.lock"):
        assert store.find(present.id).manifest == present.manifest
        with pytest.raises(StoreError):
            store.find(deleted.id)
        assert not deleted.path.exists()
    store.find(deleted.id).verify()


class Life(RuleBasedStateMachine):
    """Any order of put, remove and gc, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.store = Store(self.home)
        self.expected: dict[tuple[str, str], str] = {}

    @rule(
        name=st.sampled_from(["a", "b"]), runtime=st.sampled_from(["openvino", "onnxruntime"]), seed=st.integers(0, 2)
    )
    def put(self, name, runtime, seed):
        manifest, files = make_bundle("same", runtime, seed)
        self.store.put(name, "int8", manifest, files)
        self.expected[name, runtime] = manifest.id

    @rule(name=st.sampled_from(["a", "b"]), runtime=st.sampled_from([None, "openvino", "onnxruntime"]))
    def remove(self, name, runtime):
        gone = [key for key in self.expected if key[0] == name and runtime in (None, key[1])]
        if not gone:
            with pytest.raises(NoMatchError):
                self.store.remove(Reference(name), target=runtime)
            return
        self.store.remove(Reference(name), target=runtime)
        for key in gone:
            del self.expected[key]

    @rule()
    def gc(self):
        self.store.gc()
        assert blobs(self.store) == (named_in(self.store) if self.expected else set())
        there = {path.name for path in self.home.glob("bundles/*")}
        assert there == set(self.expected.values())

    @invariant()
    def lists_what_was_put(self):
        listed = {(name[:1], bundle.record.target.runtime): bundle.id for name, bundle in self.store.list()}
        assert listed == self.expected
        assert list(self.store.verify()) == []

    def teardown(self) -> None:
        shutil.rmtree(self.home)


def test_any_order_of_put_remove_and_gc_keeps_what_was_put():
    run_state_machine_as_test(
        Life, settings=settings(max_examples=25, stateful_step_count=12, deadline=None, derandomize=True)
    )
