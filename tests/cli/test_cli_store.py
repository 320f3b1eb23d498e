"""qzoo store: ls, show, rm, gc, verify."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime

import pytest

from qzoo.store import Store


def entries(home) -> list[tuple[str, str]]:
    return [(entry.name, entry.target.partition("/")[0]) for entry in Store(home).entries()]


def bundle_of(home, runtime):
    return next(bundle for _, bundle in Store(home).list() if bundle.record.target.runtime == runtime)


def edit(path) -> tuple[str, str]:
    """Change a byte in place, so that links see it; the digests before and after."""
    data = bytearray(path.read_bytes())
    before = hashlib.sha256(data).hexdigest()
    data[9] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    return before, hashlib.sha256(data).hexdigest()


def tree(home) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "store.lock"}


def test_ls_shows_each_engine_with_what_was_measured(qzoo, built, bundles):
    ended = qzoo("store", "ls")
    assert (ended.code, ended.err) == (0, "")
    heading, *rows = ended.out.splitlines()
    assert heading.split() == ["reference", "target", "size", "latency", "accuracy", "stored"]
    for row, runtime in zip(rows, ("onnxruntime", "openvino"), strict=False):
        measured, target = bundles[runtime].measurement, bundles[runtime].record.target
        assert row.split()[:2] == ["resnet20:int8", str(target)]
        assert f"{measured.size_bytes['engine'] / 1e6:.3f} MB" in row
        assert f"{measured.latency['int8'].median_ms:.3f} ms" in row
        assert f"{measured.accuracy['engine'].fraction:.2%}" in row


def test_ls_in_json_has_what_names_and_finds_each_bundle(qzoo, built, bundles):
    found = qzoo("store", "ls", "--json").json
    assert found["home"] == str(built)
    blobs = (built / "store" / "blobs" / "sha256").iterdir()
    assert found["disk_bytes"] == sum(path.stat().st_size for path in blobs)
    for one, runtime in zip(found["stored"], ("onnxruntime", "openvino"), strict=True):
        bundle = bundles[runtime]
        assert (one["id"], one["bundle"], one["damage"]) == (bundle.id, str(bundle.path), None)
        assert one["size_bytes"]["bundle"] == sum(path.stat().st_size for path in bundle.path.iterdir())
        assert one["accuracy"]["engine_correct"] == bundle.measurement.accuracy["engine"].correct
        written = datetime.fromtimestamp((bundle.path / "measurement.json").stat().st_mtime, UTC)
        assert abs((datetime.fromisoformat(one["stored"]) - written).total_seconds()) < 1
        shown = qzoo("info", f"{one['reference']}@{one['digest']}", "--json").json
        assert shown["manifest"]["id"] == bundle.id


def test_ls_of_an_empty_store_says_how_to_fill_it(qzoo, home):
    ended = qzoo("store", "ls")
    assert (ended.code, ended.out) == (0, f"nothing is stored in {home}; see `qzoo build --help`\n")
    assert not home.exists()


def test_ls_of_what_was_not_measured_leaves_it_out(qzoo):
    assert qzoo("build", "resnet20", "--weights", "random", "--target", "onnxruntime").code == 0
    (one,) = qzoo("store", "ls", "--json").json["stored"]
    assert one["accuracy"] is None
    assert " - " in qzoo("store", "ls").out.splitlines()[1]


def test_ls_names_a_damaged_bundle_and_still_lists_the_others(qzoo, copied):
    (bundle_of(copied, "openvino").path / "measurement.json").unlink()
    ended = qzoo("store", "ls")
    assert ended.code == 0
    assert "damaged" in ended.out.splitlines()[2]
    assert "ms" in ended.out.splitlines()[1]
    assert "measurement.json is missing; build or fetch the bundle again" in ended.err
    sound, damaged = qzoo("store", "ls", "--json").json["stored"]
    assert sound["damage"] is None
    assert "measurement.json is missing" in damaged["damage"]
    assert damaged["size_bytes"] is None


def test_show_prints_what_info_does(qzoo, built):
    for words in ((), ("--target", "onnxruntime"), ("--json",)):
        assert qzoo("store", "show", "resnet20", *words).out == qzoo("info", "resnet20:int8", *words).out != ""


def test_show_means_the_store_whatever_lies_in_the_directory(qzoo, built, bundles, tmp_path, monkeypatch):
    shutil.copytree(bundles["openvino"].path, tmp_path / "resnet20")
    monkeypatch.chdir(tmp_path)
    found = qzoo("store", "show", "resnet20", "--target", "onnxruntime", "--json").json
    assert found["engine"] == str(bundles["onnxruntime"].engine)


def test_rm_forgets_and_says_that_gc_frees_the_space(qzoo, copied):
    place = bundle_of(copied, "openvino").path
    ended = qzoo("store", "rm", "resnet20:int8", "--target", "openvino")
    assert ended.code == 0
    assert "forgot resnet20:int8 for openvino/" in ended.out
    assert "`qzoo store gc` frees the space" in ended.out
    assert entries(copied) == [("resnet20:int8", "onnxruntime")]
    assert place.is_dir()
    assert qzoo("store", "gc").code == 0
    assert not place.exists()


def test_rm_without_a_target_forgets_all_and_names_each_by_digest(qzoo, copied):
    before = {one["digest"] for one in qzoo("store", "ls", "--json").json["stored"]}
    removed = qzoo("store", "rm", "resnet20", "--json").json["removed"]
    assert {one["digest"] for one in removed} == before
    assert entries(copied) == []


def test_rm_forgets_all_or_none_of_those_named(qzoo, copied):
    ended = qzoo("store", "rm", "resnet20", "nosuch:fp32")
    assert (ended.code, ended.out) == (7, "")
    assert "nosuch:fp32 is not in the store; there is resnet20:int8" in ended.err
    assert len(entries(copied)) == 2


def test_rm_of_one_named_twice_forgets_it_once(qzoo, copied):
    assert len(qzoo("store", "rm", "resnet20", "resnet20:int8", "--json").json["removed"]) == 2


def test_rm_forgets_a_tag_whose_list_of_targets_is_damaged(qzoo, copied):
    (index,) = json.loads((copied / "store" / "index.json").read_bytes())["manifests"]
    Store(copied).layout.blob_path(index["digest"].removeprefix("sha256:")).write_text("{}")
    for words in (("ls",), ("gc",), ("verify", "resnet20"), ("rm", "resnet20", "--target", "openvino")):
        ended = qzoo("store", *words)
        assert (ended.code, ended.out) == (6, "")
        assert "was changed: expected sha256:" in ended.err
    assert "or forget it: qzoo store rm resnet20:int8" in qzoo("store", "ls").err
    assert qzoo("store", "rm", "resnet20", "--json").json["removed"] == [
        {"reference": "resnet20:int8", "target": None, "digest": None}
    ]
    assert qzoo("store", "gc").code == 0
    assert not list(Store(copied).layout.stored())


def test_gc_says_what_it_freed_and_leaves_the_cache(qzoo, copied):
    (copied / "cache" / "weights").mkdir(parents=True, exist_ok=True)
    (copied / "cache" / "weights" / "net.safetensors").write_bytes(bytes(1000))
    bundle = bundle_of(copied, "openvino")
    qzoo("store", "rm", "resnet20", "--target", "openvino")
    planned = qzoo("store", "gc", "--dry-run", "--json").json
    assert bundle.path.is_dir()
    done = qzoo("store", "gc", "--json").json
    assert (planned.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert planned == done
    assert done["removed"]["bundles"] == 1
    assert done["removed"]["freed_bytes"] > bundle.manifest.files["engine.blob"].size_bytes
    assert done["cache"]["path"] == str(copied / "cache")
    assert done["cache"]["size_bytes"] >= 1000
    assert not bundle.path.exists()
    assert (copied / "cache" / "weights" / "net.safetensors").exists()
    assert f"in {copied / 'cache'}; --cache removes it too" in qzoo("store", "gc").out


def test_a_dry_run_changes_nothing(qzoo, copied):
    qzoo("store", "rm", "resnet20")
    before = tree(copied)
    ended = qzoo("store", "gc", "--cache", "--dry-run")
    assert ended.out.startswith("would remove  bundles 2, ")
    assert f"would remove  the cache, {(sum_of(copied / 'cache')) / 1e6:.3f} MB" in ended.out
    assert tree(copied) == before


def sum_of(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_gc_with_cache_empties_it_and_leaves_what_links_in_it_lead_to(qzoo, copied, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"photo")
    (copied / "cache").mkdir(exist_ok=True)
    (copied / "cache" / "link").symlink_to(tmp_path / "mine")
    assert qzoo("store", "gc", "--cache").code == 0
    assert list((copied / "cache").iterdir()) == []
    assert (tmp_path / "mine" / "photo.png").read_bytes() == b"photo"
    assert len(entries(copied)) == 2
    assert qzoo("store", "verify").code == 0


def test_verify_says_that_all_is_sound_and_how_much_that_was(qzoo, built):
    files = qzoo("store", "verify", "--json").json["files"]
    assert qzoo("store", "verify").out == f"all {files} files are as they were stored\n"


def test_verify_lists_each_damaged_file_with_both_digests_and_ends_with_6(qzoo, copied):
    engine = bundle_of(copied, "openvino").engine
    expected, found = edit(engine)
    blob = copied / "store" / "blobs" / "sha256" / expected  # a copied home has no hard links
    edit(blob)
    ended = qzoo("store", "verify")
    assert ended.code == 6
    for path in (engine, blob):
        assert f"{path}\n  expected sha256:{expected}\n  found    sha256:{found}\n" in ended.out
    assert "2 of " in ended.err
    assert "with --force" in ended.err
    as_json = qzoo("store", "verify", "--json")
    assert as_json.code == 6
    assert {one["path"] for one in as_json.json["damaged"]} == {str(engine), str(blob)}


def test_verify_of_a_reference_looks_at_no_other(qzoo, copied):
    engine = bundle_of(copied, "openvino").engine
    engine.unlink()
    sound = qzoo("store", "verify", "resnet20:int8", "--target", "onnxruntime", "--json")
    assert (sound.code, sound.json["damaged"]) == (0, [])
    damaged = qzoo("store", "verify", "resnet20:int8", "--target", "openvino")
    assert damaged.code == 6
    assert f"{engine}\n" in damaged.out
    assert "  missing, or can't be read\n" in damaged.out


def test_what_verify_advises_mends_the_damage(qzoo, copied):
    edit(bundle_of(copied, "onnxruntime").engine)
    assert qzoo("store", "verify").code == 6
    assert qzoo("store", "rm", "resnet20", "--target", "onnxruntime").code == 0
    assert qzoo("store", "gc").code == 0
    assert qzoo("store", "verify").code == 0


def test_verify_logs_how_many_files_it_reads(qzoo, built):
    files = qzoo("store", "verify", "--json").json["files"]
    assert f"INFO    qzoo: hashing, {files} steps" in qzoo("store", "verify", "-v").err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("show", "nosuch"), 7, "nosuch is not in the store; there is nothing yet"),
        (("rm", "nosuch"), 7, "nosuch is not in the store"),
        (("verify", "nosuch"), 7, "nosuch is not in the store"),
        (("rm", "./nosuch"), 2, "'./nosuch' is no reference; write name[:tag]"),
        (("show", "Nosuch"), 2, "in lowercase"),
        (("rm",), 2, "Missing argument 'REFERENCE...'"),
        (("verify", "--target", "openvino"), 2, "give the reference too"),
    ],
)
def test_what_cannot_be_done_is_said(qzoo, words, code, says):
    ended = qzoo("store", *words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err


@pytest.mark.parametrize("verb", ["ls", "rm", "gc", "verify"])
def test_the_verbs_load_no_torch(verb):
    import subprocess
    import sys

    code = f"import sys, qzoo.cli.store.{verb}; assert not {{'torch', 'onnxruntime', 'openvino'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
