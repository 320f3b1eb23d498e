"""Fetches one blob: resumed, hashed as it comes, and visible only once it is whole and right."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import IO, Literal

from filelock import FileLock

from qzoo.errors import IntegrityError, RemoteInterrupted
from qzoo.records import file_digest
from qzoo.store.layout import Descriptor
from qzoo.writing import writing
from qzoo.zoo.remote import CHUNK, BlobStream, Moved, Remote
from qzoo.zoo.retry import Backoff

State = Literal["fetched", "resumed", "already there"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of a blob: how it came, and how many bytes were asked for now."""

    state: State
    moved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """How to fetch the blobs of one name: from where, through which directory, and until when."""

    remote: Remote
    name: str
    partial: Path
    backoff: Backoff = field(default_factory=Backoff)
    stop: Event = field(default_factory=Event)

    def blob(self, blob: Descriptor, what: str, into: Path, moved: Moved) -> Fetched:
        """Fetch a blob to `into`, unless it is there and right.

        What comes is kept as `<partial>/<hex>.part`, whatever happens, and the next call goes on from there, after
        hashing it again. One process at a time fetches a blob; others wait, then find it. `what` names it in messages.

        Raises IntegrityError where the bytes are not those of the descriptor: then nothing is kept of them.
        RemoteInterrupted where the connection is cut again and again without a byte in between. StoreError where the
        disk is full.
        """
        part = self.partial / f"{blob.sha256}.part"
        with writing(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)
            into.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(part.with_suffix(".lock"))
            lock.acquire()
        try:
            if _is_there(into, blob):
                moved(blob.size)
                return Fetched(state="already there", moved_bytes=0)
            with writing(part):
                return _Part(self, blob, what, part, moved).completed(into)
        finally:
            lock.release()


class _Part:
    """The file `<hex>.part`, open, and the hash of what is in it."""

    def __init__(self, fetch: Fetch, blob: Descriptor, what: str, path: Path, moved: Moved) -> None:
        self._fetch, self._blob, self._what, self._path, self._moved = fetch, blob, what, path, moved
        self._hash, self._have, self._asked = hashlib.sha256(), 0, 0

    def completed(self, into: Path) -> Fetched:
        with self._path.open("a+b") as file:
            self._hash_again(file)
            resumed = self._have > 0
            self._fill(file)
            if resumed and not self._is_right():  # what was kept may be at fault, so once more from the start
                self._start_over(file)
                self._fill(file)
            self._check()
            file.flush()
            os.fsync(file.fileno())
        self._path.chmod(0o644)
        self._path.replace(into)
        return Fetched(state="resumed" if resumed else "fetched", moved_bytes=self._asked)

    def _hash_again(self, file: IO[bytes]) -> None:
        file.seek(0, os.SEEK_END)
        if file.tell() > self._blob.size:
            file.truncate(0)
        file.seek(0)
        while chunk := file.read(CHUNK):
            self._take(chunk)

    def _fill(self, file: IO[bytes]) -> None:
        """Read until all is there. The back-off begins anew whenever more is there than ever before."""
        failures, furthest = 0, self._have
        while self._have < self._blob.size:
            try:
                with self._fetch.remote.blob(self._fetch.name, self._blob, self._have) as stream:
                    self._read(stream, file)
            except RemoteInterrupted as error:
                failures = 1 if self._have > furthest else failures + 1
                furthest = max(furthest, self._have)
                if failures >= self._fetch.backoff.attempts or self._fetch.stop.is_set():
                    raise RemoteInterrupted(
                        f"{error}; {self._have} of {self._what}'s {self._blob.size} bytes are kept: pull again to go on"
                    ) from error
                self._fetch.backoff.wait(failures, self._fetch.stop.wait)

    def _read(self, stream: BlobStream, file: IO[bytes]) -> None:
        if stream.start != self._have:
            self._start_over(file)
        for chunk in stream.chunks:
            if self._have + len(chunk) > self._blob.size:
                self._discard()
                raise IntegrityError(
                    f"{self._what}: {self._fetch.remote.location} sends more than the {self._blob.size} bytes of "
                    f"{self._blob.digest}; it isn't that file"
                )
            file.write(chunk)
            self._take(chunk)
            self._asked += len(chunk)
            if self._fetch.stop.is_set():
                raise RemoteInterrupted("stopped")
        if self._have < self._blob.size:
            raise RemoteInterrupted(
                f"{self._fetch.remote.location} ends {self._what} at byte {self._have} of {self._blob.size}"
            )

    def _take(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._have += len(chunk)
        self._moved(len(chunk))

    def _start_over(self, file: IO[bytes]) -> None:
        file.truncate(0)
        file.seek(0)
        self._moved(-self._have)
        self._hash, self._have = hashlib.sha256(), 0

    def _is_right(self) -> bool:
        return self._hash.hexdigest() == self._blob.sha256

    def _check(self) -> None:
        if not self._is_right():
            self._discard()
            raise IntegrityError(
                f"{self._what} from {self._fetch.remote.location} was changed: expected {self._blob.digest}, found "
                f"sha256:{self._hash.hexdigest()}; ask who publishes it to push it again"
            )

    def _discard(self) -> None:
        self._path.unlink()
        self._moved(-self._have)


def _is_there(path: Path, blob: Descriptor) -> bool:
    return path.is_file() and path.stat().st_size == blob.size and file_digest(path) == blob.sha256
