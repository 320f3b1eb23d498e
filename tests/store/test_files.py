"""Directories that appear whole or not at all, and names that stay where they belong."""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qzoo.errors import IntegrityError, StoreError
from qzoo.store.files import is_plain, is_sha256, link_or_copy, new_directory, verify_file


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_directory_leaves_nothing(tmp_path, interruption):
    def fill() -> None:
        with new_directory(tmp_path / "new") as temporary:
            (temporary / "half").write_text("half")
            raise interruption

    with pytest.raises(interruption):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_a_directorys_place_stays_and_nothing_else_is_left(tmp_path):
    (tmp_path / "place").write_text("mine")
    with (
        pytest.raises(StoreError, match=r"place can't be written: Not a directory"),
        new_directory(tmp_path / "place") as temporary,
    ):
        (temporary / "new").write_text("new")
    assert (tmp_path / "place").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_new_directory_takes_the_place_of_an_old_one_wholly(tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "old").write_text("old")
    with new_directory(tmp_path / "place") as temporary:
        (temporary / "new").write_text("new")
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["new"]
    assert stat.S_IMODE((tmp_path / "place").stat().st_mode) == 0o755


def test_a_link_shares_the_file(tmp_path):
    (tmp_path / "source").write_text("data")
    link_or_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").samefile(tmp_path / "source")


def test_where_no_link_is_possible_the_file_is_copied(tmp_path):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other file system here")
    source = elsewhere / f"qzoo-test-{os.getpid()}"
    source.write_text("data")
    try:
        link_or_copy(source, tmp_path / "target")
    finally:
        source.unlink()
    assert (tmp_path / "target").read_text() == "data"


def test_a_file_of_that_digest_passes_and_another_is_named_with_both(tmp_path):
    path = tmp_path / "engine.blob"
    path.write_bytes(b"data")
    good, bad = (hashlib.sha256(data).hexdigest() for data in (b"data", b"Data"))
    verify_file(path, good)
    path.write_bytes(b"Data")
    with pytest.raises(IntegrityError, match=rf"engine\.blob was changed: expected sha256:{good}, found sha256:{bad}"):
        verify_file(path, good)


def test_a_file_that_is_not_there_is_an_integrity_error(tmp_path):
    with pytest.raises(IntegrityError, match=r"gone can't be read: No such file or directory; .*again") as raised:
        verify_file(tmp_path / "gone", "0" * 64)
    assert raised.value.exit_code == 6


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="ab./\\\0", max_size=6))
@example("..")
@example("a\\..\\b")
@example("/etc/passwd")
def test_a_plain_name_stays_in_its_directory_on_every_system(name):
    if is_plain(name):
        assert posixpath.split(posixpath.normpath(f"/bundle/{name}")) == ("/bundle", name)
        assert PureWindowsPath(name).parts == (name,)
        assert "\0" not in name


@pytest.mark.parametrize("name", ["engine.blob", ".hidden", "a..b", "..a", "model v2 (1).onnx", "größe"])
def test_ordinary_names_are_plain(name):
    assert is_plain(name)


def test_only_64_lowercase_hex_digits_are_a_sha256():
    assert is_sha256(hashlib.sha256(b"").hexdigest())
    for text in ("", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "../" + "0" * 61):
        assert not is_sha256(text), text
