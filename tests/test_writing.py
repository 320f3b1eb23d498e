"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qzoo.errors import StoreError
from qzoo.writing import left_over, new_file, write_file, writing


def test_a_written_file_may_be_read_by_all_and_its_directories_are_made(tmp_path):
    write_file(tmp_path / "a" / "b" / "file", b"data")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "a" / "b" / "file").stat().st_mode) == 0o644


def test_a_written_file_replaces_the_old_one_and_leaves_its_links_alone(tmp_path):
    write_file(tmp_path / "file", b"old")
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "link").read_bytes() == b"old"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append("flush"), fsync(number))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (steps.append("rename"), replace(self, target))[1])
    write_file(tmp_path / "file", b"data")
    assert steps == ["flush", "rename"]


def test_a_directory_in_a_files_place_stays_and_nothing_is_left(tmp_path):
    (tmp_path / "place" / "inside").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"place can't be written: Is a directory"):
        write_file(tmp_path / "place", b"data")
    assert [path.name for path in tmp_path.rglob("*")] == ["place", "inside"]


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    write_file(tmp_path / "file", b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_file_leaves_the_old_one(tmp_path, interruption):
    def fill() -> None:
        with new_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise interruption

    (tmp_path / "file").write_text("old")
    with pytest.raises(interruption):
        fill()
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "it is read-only"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_a_failure_to_write_says_where_why_and_what_to_do(number, words):
    with (
        pytest.raises(StoreError, match=rf"^/home/zoo can't be written: {words}; .*QZOO_HOME") as raised,
        writing(Path("/home/zoo")),
    ):
        raise OSError(number, os.strerror(number))
    assert raised.value.exit_code == 1
    assert raised.value.__cause__.errno == number


WRITER = """
import sys
from pathlib import Path
from qzoo.writing import new_file

with new_file(Path(sys.argv[1])) as temporary:
    print(temporary, flush=True)
    sys.stdin.readline()
"""


def test_a_file_that_is_being_written_is_left_over_once_its_process_is_dead(tmp_path):
    command = [sys.executable, "-c", WRITER, tmp_path / "deep" / "file"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        temporary = Path(writer.stdout.readline().strip())
        assert temporary.is_file()
        assert left_over(tmp_path) == []
        writer.kill()
        writer.wait()
    assert left_over(tmp_path) == [temporary]


def test_whole_files_and_directories_are_not_left_over(tmp_path):
    write_file(tmp_path / "file", b"data")
    (tmp_path / ".tmp-folder").mkdir()
    assert left_over(tmp_path) == []
    assert left_over(tmp_path / "nowhere") == []
