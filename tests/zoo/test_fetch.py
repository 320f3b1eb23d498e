"""A blob comes whole and right, or not at all, and what came is not asked for again: from a server of files."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from faulty import Fault, Faulty, always, each, faulty, files, once

from qzoo.errors import IntegrityError, RemoteError, RemoteInterrupted, StoreError
from qzoo.store.layout import Descriptor
from qzoo.zoo.fetch import Fetch, Fetched
from qzoo.zoo.retry import Backoff
from qzoo.zoo.static import StaticTree

DATA = random.Random(7).randbytes(300_000)
BLOB = Descriptor(mediaType="text/plain", digest=f"sha256:{hashlib.sha256(DATA).hexdigest()}", size=len(DATA))
PATH = f"blobs/sha256/{BLOB.sha256}"
AT_ONCE = Backoff(attempts=3, first_s=0, longest_s=0)


@pytest.fixture
def server(tmp_path) -> Iterator[Faulty]:
    """A server of the blob, without faults so far."""
    place = tmp_path / "served" / PATH
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA)
    with faulty(files(tmp_path / "served")) as running:
        yield running


class Fetcher:
    """Fetches the blob into a directory, and notes the progress that is told."""

    def __init__(self, server: Faulty, folder: Path) -> None:
        self.fetch = Fetch(remote=StaticTree(server.url), name="net", partial=folder / "partial", backoff=AT_ONCE)
        self.into = folder / "blobs" / BLOB.sha256
        self.part = folder / "partial" / f"{BLOB.sha256}.part"
        self.told: list[int] = []

    def __call__(self, blob: Descriptor = BLOB) -> Fetched:
        return self.fetch.blob(blob, "engine.blob", self.into, self.told.append)

    def keep(self, data: bytes) -> None:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.write_bytes(data)


@pytest.fixture
def fetcher(server, tmp_path) -> Fetcher:
    return Fetcher(server, tmp_path / "here")


def ranges(server: Faulty) -> list[str | None]:
    return [one.headers.get("Range") for one in server.blob_requests()]


def test_a_blob_is_fetched_whole_and_its_progress_adds_up(fetcher, server):
    assert fetcher() == Fetched(state="fetched", moved_bytes=len(DATA))
    assert fetcher.into.read_bytes() == DATA
    assert sum(fetcher.told) == len(DATA)
    assert not fetcher.part.exists()
    assert ranges(server) == [None]


def test_a_blob_that_is_there_is_not_asked_for(fetcher, server):
    fetcher()
    server.asked.clear()
    assert fetcher() == Fetched(state="already there", moved_bytes=0)
    assert server.asked == []
    assert sum(fetcher.told) == 2 * len(DATA)


def test_a_blob_that_was_edited_is_fetched_again(fetcher):
    fetcher()
    fetcher.into.write_bytes(DATA[:-1] + b"?")
    assert fetcher().state == "fetched"
    assert fetcher.into.read_bytes() == DATA


def test_an_empty_blob_needs_no_request(fetcher, server):
    empty = Descriptor(mediaType="text/plain", digest=f"sha256:{hashlib.sha256(b'').hexdigest()}", size=0)
    fetcher.into = fetcher.into.with_name(empty.sha256)
    fetcher(empty)
    assert fetcher.into.read_bytes() == b""
    assert server.asked == []


@pytest.mark.parametrize("kept", [1, 100_000, len(DATA) - 1])
def test_what_was_kept_is_hashed_again_and_only_the_rest_is_asked_for(fetcher, server, kept):
    fetcher.keep(DATA[:kept])
    assert fetcher() == Fetched(state="resumed", moved_bytes=len(DATA) - kept)
    assert ranges(server) == [f"bytes={kept}-"]
    assert fetcher.into.read_bytes() == DATA
    assert sum(fetcher.told) == len(DATA)


def test_what_was_kept_whole_needs_no_request(fetcher, server):
    fetcher.keep(DATA)
    assert fetcher() == Fetched(state="resumed", moved_bytes=0)
    assert server.asked == []


@pytest.mark.parametrize("kept", [b"?" * 1000, DATA[:999] + b"?", b"?" * len(DATA), DATA + b"?"])
def test_what_was_kept_wrong_is_fetched_from_the_start(fetcher, kept):
    fetcher.keep(kept)
    fetcher()
    assert fetcher.into.read_bytes() == DATA
    assert sum(fetcher.told) == len(DATA)


def test_a_cut_connection_goes_on_where_it_was(fetcher, server):
    server.faults = each([Fault(cut_after=100_000), Fault(cut_after=0), Fault(cut_after=50_000)])
    assert fetcher().moved_bytes == len(DATA)
    assert ranges(server) == [None, "bytes=100000-", "bytes=100000-", "bytes=150000-"]
    assert fetcher.into.read_bytes() == DATA


def test_attempts_are_counted_anew_after_each_byte_that_came(fetcher, server):
    server.faults = each([Fault(cut_after=10_000)] * 20)
    fetcher()
    assert fetcher.into.read_bytes() == DATA
    assert len(server.blob_requests()) == 21


def test_cuts_without_progress_end_it_and_what_came_is_kept(fetcher, server):
    server.faults = each([Fault(cut_after=100_000), *[Fault(cut_after=0)] * 10])
    with pytest.raises(RemoteInterrupted, match=r"100000 of engine.blob's 300000 bytes are kept: pull again") as raised:
        fetcher()
    assert raised.value.exit_code == 3
    assert len(server.blob_requests()) == 1 + AT_ONCE.attempts - 1
    assert fetcher.part.read_bytes() == DATA[:100_000]
    assert not fetcher.into.exists()
    server.faults = lambda _: None
    assert fetcher() == Fetched(state="resumed", moved_bytes=200_000)


def test_a_server_that_starts_over_each_time_and_is_cut_does_not_go_on_for_ever(fetcher, server):
    server.faults = always(Fault(ask=without_range, cut_after=100_000))
    with pytest.raises(RemoteInterrupted):
        fetcher()
    assert len(server.blob_requests()) <= 2 * AT_ONCE.attempts


def without_range(asked):
    return replace(asked, headers={key: value for key, value in asked.headers.items() if key != "Range"})


def test_a_server_that_ignores_the_range_is_read_from_the_start(fetcher, server):
    server.faults = always(Fault(ask=without_range))
    fetcher.keep(DATA[:100_000])
    assert fetcher().moved_bytes == len(DATA)
    assert fetcher.into.read_bytes() == DATA
    assert sum(fetcher.told) == len(DATA)


def test_a_server_that_comes_in_small_pieces_is_read_all_the_same(fetcher, server):
    server.faults = always(Fault(pieces=999))
    fetcher()
    assert fetcher.into.read_bytes() == DATA


@pytest.mark.parametrize(
    "sent",
    [
        "bytes 0-299999/300000",
        "bytes 99999-299999/300000",
        "bytes 100000-299999/300001",
        "bytes 100000-299998/300000",
        "",
    ],
)
def test_another_range_than_was_asked_for_is_refused(fetcher, server, sent):
    server.faults = always(Fault(change=lambda answer: replace(answer, headers={"Content-Range": sent})))
    fetcher.keep(DATA[:100_000])
    with pytest.raises(RemoteError, match="bytes 100000-299999/300000 was asked for"):
        fetcher()
    assert fetcher.part.read_bytes() == DATA[:100_000]
    assert not fetcher.into.exists()


def corrupted(answer):
    return replace(answer, headers={**answer.headers, "ETag": BLOB.digest}, body=answer.body[:-1] + b"?")


def test_bytes_that_were_changed_are_refused_with_both_digests_whatever_the_etag_says(fetcher, server):
    server.faults = always(Fault(change=corrupted))
    found = hashlib.sha256(DATA[:-1] + b"?").hexdigest()
    with pytest.raises(
        IntegrityError, match=f"engine.blob from .*: expected {BLOB.digest}, found sha256:{found}"
    ) as raised:
        fetcher()
    assert raised.value.exit_code == 6
    assert not fetcher.part.exists()
    assert not fetcher.into.exists()
    assert sum(fetcher.told) == 0


def test_an_endless_body_is_cut_at_the_descriptors_size(fetcher, server):
    server.faults = always(Fault(endless=True))
    with pytest.raises(IntegrityError, match="sends more than the 300000 bytes"):
        fetcher()
    assert not fetcher.part.exists()
    assert server.sent_bytes < 50 * len(DATA)


@pytest.mark.parametrize("length", ["299999", "300001", "99999999999"])
def test_a_blob_of_another_length_is_refused_before_it_is_read(fetcher, server, length):
    server.faults = always(
        Fault(change=lambda answer: replace(answer, headers={"Content-Length": length}), cut_after=10)
    )
    with pytest.raises(IntegrityError, match=f"offers {length} bytes for {BLOB.digest}, expected 300000"):
        fetcher()
    assert not fetcher.into.exists()


def test_a_range_that_can_not_be_satisfied_is_asked_for_from_the_start(fetcher, server):
    server.faults = once(Fault(change=lambda answer: replace(answer, status=416, headers={}, body=b"")))
    fetcher.keep(DATA[:100_000])
    fetcher()
    assert fetcher.into.read_bytes() == DATA


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(fetcher, server, status):
    server.faults = once(Fault(change=lambda answer: replace(answer, status=status, headers={}, body=b"")))
    fetcher()
    assert fetcher.into.read_bytes() == DATA


@pytest.mark.parametrize("status", [204, 404, 418])
def test_an_answer_that_is_no_blob_is_an_error(fetcher, server, status):
    server.faults = always(Fault(change=lambda answer: replace(answer, status=status, headers={}, body=b"")))
    with pytest.raises(RemoteError, match=f"is answered with {status}"):
        fetcher()
    assert len(server.blob_requests()) == 1


def test_several_that_fetch_the_same_blob_at_once_fetch_it_once(server, tmp_path):
    fetchers = [Fetcher(server, tmp_path / "here") for _ in range(4)]
    server.faults = each([Fault(pieces=1000)])
    with ThreadPoolExecutor(4) as pool:
        states = [found.state for found in pool.map(lambda one: one(), fetchers)]
    assert sorted(states) == ["already there"] * 3 + ["fetched"]
    assert len(server.blob_requests()) == 1


def test_a_fetch_that_is_stopped_keeps_what_came(fetcher, server):
    server.faults = always(Fault(pieces=50_000))
    stop = Event()
    fetcher.fetch = replace(fetcher.fetch, stop=stop)

    def stop_at(size: int) -> None:
        fetcher.told.append(size)
        if sum(fetcher.told) > 60_000:
            stop.set()

    with pytest.raises(RemoteInterrupted):
        fetcher.fetch.blob(BLOB, "engine.blob", fetcher.into, stop_at)
    kept = fetcher.part.read_bytes()
    assert 60_000 < len(kept) <= len(DATA)
    assert DATA.startswith(kept)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs can't be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_an_error_with_a_way_out_and_once_there_is_space_it_goes_on(server, small_disk):
    fetcher = Fetcher(server, small_disk)
    with pytest.raises(StoreError, match=r"the disk is full; free space there, or point QZOO_HOME") as raised:
        fetcher()
    assert raised.value.exit_code == 1
    kept = fetcher.part.read_bytes()
    assert kept
    assert DATA.startswith(kept)
    assert not fetcher.into.exists()
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    assert fetcher() == Fetched(state="resumed", moved_bytes=len(DATA) - len(kept))


def test_what_is_kept_of_a_cut_in_the_middle_of_headers_is_nothing_and_it_is_tried_again(fetcher, server):
    with contextlib.suppress(RemoteInterrupted):
        server.faults = each([Fault(cut_after=0)] * 2)
        fetcher()
    assert fetcher.into.read_bytes() == DATA
