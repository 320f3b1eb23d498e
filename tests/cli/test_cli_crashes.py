"""A build that is killed, that has no room, or that runs beside another: what is stored is whole."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_builds import SMALL

from qzoo.store import Store

COMMAND = [Path(sys.executable).with_name("qzoo"), *SMALL]
STAGES = (
    "reading calibration images",
    "calibrating",
    "exporting the portable graph",
    "building onnxruntime engine",
    "storing the bundle",
)


def killed_in(stage: str, home: Path) -> int:
    """Kill a build when it says that a stage begins (of the last one, once its first blob is there): its exit code."""
    with subprocess.Popen([*COMMAND, "-v"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as build:
        said = next((line for line in build.stderr if f"qzoo: {stage}" in line), None)
        assert said is not None, f"the build never said {stage!r}"
        while stage == STAGES[-1] and not any(home.glob("store/blobs/sha256/*")) and build.poll() is None:
            pass
        build.kill()
        build.stderr.read()
    return build.returncode


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_build_leaves_nothing_half_made_the_next_one_succeeds_and_gc_cleans(qzoo, home, stage):
    assert killed_in(stage, home) == -signal.SIGKILL
    assert qzoo("store", "ls", "--json").json["stored"] == []
    assert qzoo("store", "verify").code == 0
    assert qzoo("run", "small:int8", "any.png").code == 7
    ended = qzoo(*SMALL, "--json")
    assert (ended.code, ended.err, ended.json["cached"]) == (0, "", False)
    ((name, bundle),) = Store(home).list()
    assert (name, str(bundle.path)) == ("small:int8", ended.json["bundle"])
    assert qzoo("store", "gc").code == 0
    assert list(home.rglob(".tmp-*")) == []
    assert [path.name for path in (home / "bundles").iterdir()] == [bundle.id]
    assert qzoo("store", "verify").code == 0


def test_two_builds_of_the_same_at_once_both_succeed_and_make_one_bundle(home):
    both = [
        subprocess.Popen([*COMMAND, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [build.communicate() for build in both]
    assert [build.returncode for build in both] == [0, 0], ended
    assert [err for _, err in ended] == ["", ""]
    one, other = (json.loads(out) for out, _ in ended)
    assert one["engine"] == other["engine"]
    ((name, bundle),) = Store(home).list()
    assert (name, str(bundle.engine)) == ("small:int8", one["engine"])
    assert list(Store(home).verify()) == []
    assert list(home.rglob(".tmp-*")) == []


@pytest.fixture
def small_disk(tmp_path, monkeypatch) -> Path:
    """QZOO_HOME on a file system of 1 MiB, with an fp32 build of `small`."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs can't be mounted here")
    monkeypatch.setenv("QZOO_HOME", str(place / "home"))
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path) -> Path:
    filler = place / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return filler


def files_of(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_full_disk_ends_with_1_says_what_to_do_and_keeps_what_was_there(qzoo, small_disk, digits):
    kept = qzoo(*SMALL, "--precision", "fp32", "--json").json
    before = files_of(small_disk / "home")
    filler = fill(small_disk)
    ended = qzoo(*SMALL)
    assert (ended.code, ended.out) == (1, "")
    assert (
        "can't be written: the disk is full; free space there, or point QZOO_HOME (or -o) to another place" in ended.err
    )
    filler.unlink()
    assert files_of(small_disk / "home") == before
    assert qzoo("run", kept["engine"], digits[0]).code == 0
    assert qzoo(*SMALL).code == 0


def test_a_full_disk_before_the_first_build_ends_with_1_too(qzoo, small_disk):
    filler = fill(small_disk)
    ended = qzoo(*SMALL)
    assert (ended.code, ended.out) == (1, "")
    assert f"{small_disk / 'home'}" in ended.err
    assert "can't be written: the disk is full; free space there, or point QZOO_HOME" in ended.err
    filler.unlink()
    assert files_of(small_disk) == {}


def test_a_read_only_store_ends_with_1_and_serves_what_it_has(qzoo, small_disk, digits):
    kept = qzoo(*SMALL, "--precision", "fp32", "--json").json
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ended = qzoo(*SMALL)
    assert (ended.code, ended.out) == (1, "")
    assert f"{small_disk / 'home'}" in ended.err
    assert "can't be written: it is read-only; free space there, or point QZOO_HOME" in ended.err
    again = qzoo(*SMALL, "--precision", "fp32", "--json")
    assert (again.code, again.json["cached"], again.json["engine"]) == (0, True, kept["engine"])
    assert qzoo("run", "small:fp32", digits[0]).code == 0


def test_a_checkpoint_whose_class_count_can_not_be_remembered_ends_with_1(qzoo, small_disk, tmp_path):
    import torch

    torch.save({"fc.weight": torch.zeros(10, 128)}, tmp_path / "mine.pth")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ended = qzoo(*SMALL, "--weights", tmp_path / "mine.pth")
    assert (ended.code, ended.out) == (1, "")
    assert "can't be written: it is read-only; free space there, or point QZOO_HOME" in ended.err
