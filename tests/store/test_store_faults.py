"""Killed, crowded, full: what is visible in the store is whole."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_bundles import make_bundle

from qzoo.errors import StoreError
from qzoo.store import Reference, Store
from qzoo.store.files import new_directory

CHILD = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from small_bundles import make_bundle
from qzoo.store import Store

left = total = int(sys.argv[2])
def counted(call):
    def run(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return run
for name in ("fsync", "link", "rename", "replace", "mkdir", "open"):
    setattr(os, name, counted(getattr(os, name)))
manifest, files = make_bundle(seed=1)
Store(Path(sys.argv[1])).put("net", "int8", manifest, files)
print(total - left)
"""


def put_and_die(home: Path, after: int) -> subprocess.CompletedProcess[str]:
    """Another process puts a bundle, and is killed at its `after`-th call that changes the disk."""
    code = CHILD.format(folder=str(Path(__file__).parents[1]))
    return subprocess.run([sys.executable, "-c", code, home, str(after)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> int:
    """How many calls that change the disk a put makes."""
    home = tmp_path_factory.mktemp("counted") / "home"
    manifest, files = make_bundle()
    Store(home).put("net", "int8", manifest, files)
    ended = put_and_die(home, 1 << 30)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


@pytest.mark.parametrize("part", [0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1])
def test_a_process_killed_while_it_puts_leaves_the_old_or_the_new_state(store, put, calls, part):
    old, new = put(), make_bundle(seed=1)[0]
    ended = put_and_die(store.home, 1 + round(part * (calls - 1)))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    visible = [bundle for _, bundle in store.list()]
    assert [bundle.id for bundle in visible] in ([old.id], [new.id])
    assert list(store.verify()) == []
    newest = put(seed=2)
    assert [bundle.id for _, bundle in store.list()] == [newest.id]
    store.gc()
    assert list(store.home.rglob(".tmp-*")) == []
    assert [path.name for path in (store.home / "bundles").iterdir()] == [newest.id]
    assert list(store.verify()) == []


def test_a_process_killed_anywhere_while_it_puts_the_same_bundle_again_harms_nothing(store, put):
    bundle = put(seed=1)
    after = 1
    while put_and_die(store.home, after).returncode == -signal.SIGKILL:
        assert [found.id for _, found in store.list()] == [bundle.id]
        assert list(store.verify()) == [], f"killed at call {after}"
        after += 1
    assert after > 5
    assert store.gc().temporaries > 0
    assert list(store.home.rglob(".tmp-*")) == []


def test_the_first_kill_leaves_the_old_state_and_the_last_the_new_one(store, put, calls):
    old = put()
    put_and_die(store.home, 1)
    assert [bundle.id for _, bundle in store.list()] == [old.id]
    assert put_and_die(store.home, calls + 1).returncode == 0
    assert [bundle.id for _, bundle in store.list()] == [make_bundle(seed=1)[0].id]


def test_processes_that_put_at_once_lose_nothing(store):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path; from small_bundles import make_bundle; from qzoo.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for index in range(5):\n"
        "    for name, runtime in ((f'net{sys.argv[2]}-{index}', 'openvino'), ('shared', 'onnxruntime')):\n"
        "        manifest, files = make_bundle(name, runtime)\n"
        "        store.put(name, 'int8', manifest, files)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, store.home, str(index)]) for index in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    names = [name for name, _ in store.list()]
    assert sorted(names) == sorted(
        [f"net{process}-{index}:int8" for process in range(4) for index in range(5)] + ["shared:int8"]
    )
    assert list(store.verify()) == []


def test_collecting_while_others_put_takes_nothing_from_them(store):
    start = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path; from small_bundles import make_bundle; from qzoo.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
    )
    putter = (
        "for index in range(8):\n"
        "    manifest, files = make_bundle(f'net{sys.argv[2]}', seed=index)\n"
        "    store.put(f'net{sys.argv[2]}', 'int8', manifest, files).verify()\n"
    )
    code = [putter, putter, "for _ in range(30):\n    store.gc()\n"]
    running = [
        subprocess.Popen([sys.executable, "-c", start + one, store.home, str(index)]) for index, one in enumerate(code)
    ]
    assert [process.wait() for process in running] == [0] * 3
    newest = {make_bundle(f"net{index}", seed=7)[0].id for index in range(2)}
    assert {bundle.id for _, bundle in store.list()} == newest
    assert list(store.verify()) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs can't be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_an_error_with_a_way_out_and_nothing_is_visible(small_disk):
    store = Store(small_disk / "home")
    manifest, files = make_bundle()
    kept = store.put("net", "int8", manifest, files)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(bytes(1 << 20))
    other, files = make_bundle(seed=1)
    with pytest.raises(StoreError, match=r"the disk is full.*QZOO_HOME"):
        store.put("net", "int8", other, files)
    filler.unlink()
    assert [bundle.id for _, bundle in store.list()] == [kept.id]
    assert list(store.home.rglob(".tmp-*")) == []


def test_a_read_only_store_is_read_as_ever_and_writing_says_why_not(small_disk):
    store = Store(small_disk / "home")
    manifest, files = make_bundle()
    kept = store.put("net", "int8", manifest, files)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert [bundle.id for _, bundle in store.list()] == [kept.id]
    assert store.resolve(Reference.parse("net")).engine.read_bytes() == files["engine.blob"]
    assert list(store.verify()) == []
    other, files = make_bundle(seed=1)
    for change in (
        lambda: store.put("net", "int8", other, files),
        lambda: store.remove(Reference.parse("net")),
        store.gc,
    ):
        with pytest.raises(StoreError, match=r"it is read-only; .*QZOO_HOME"):
            change()


def test_a_file_that_may_not_grow_so_large_is_an_error_and_the_old_state_stays(store, put):
    kept = put()
    code = (
        f"import resource, sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path; from small_bundles import make_bundle\n"
        "from qzoo.errors import StoreError; from qzoo.store import Store\n"
        "manifest, files = make_bundle(seed=1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    Store(Path(sys.argv[1])).put('net', 'int8', manifest, files)\n"
        "except StoreError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store.home], capture_output=True, text=True, check=True)
    assert "can't be written: File too large; free space there, or point QZOO_HOME" in done.stdout
    assert [bundle.id for _, bundle in store.list()] == [kept.id]
    assert list(store.home.rglob(".tmp-*")) == []


def test_a_home_that_can_not_be_written_is_an_error_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("in the way")
    manifest, files = make_bundle()
    with pytest.raises(StoreError, match=r"can't be written: .*QZOO_HOME") as raised:
        Store(tmp_path / "file" / "home").put("net", "int8", manifest, files)
    assert raised.value.exit_code == 1


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    def fill(place: Path, *, fail: bool) -> None:
        with new_directory(place) as temporary:
            (temporary / "a").write_text("new")
            if fail:
                raise ValueError("halfway")

    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a").write_text("old")
    with pytest.raises(ValueError, match="halfway"):
        fill(tmp_path / "made", fail=True)
    assert (tmp_path / "made" / "a").read_text() == "old"
    fill(tmp_path / "made", fail=False)
    assert (tmp_path / "made" / "a").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
