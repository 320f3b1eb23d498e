"""Whom this user trusts: QZOO_HOME/trust.json, the trusted and revoked keys, and the newest version seen of a tag."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock

from qzoo.errors import UsageError
from qzoo.records import decode, encode
from qzoo.writing import write_file, writing
from qzoo.zoo.keys import PublicKey

State = Literal["trusted", "revoked", "unknown"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PREFIX = 8
"""The fewest hex digits of an id that name a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A key that was trusted or revoked, and when; `public` (base64) is None where only its id was known."""

    id: str
    name: str
    public: str | None
    state: Literal["trusted", "revoked"]
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    origin: str
    name: str
    tag: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trust:
    keys: tuple[KnownKey, ...] = ()
    seen: tuple[_Seen, ...] = ()
    schema: Literal[1] = field(default=1)


class TrustStore:
    """The trust of one home directory. What is written is there for every process at once, whole."""

    def __init__(self, home: Path) -> None:
        self._home = home.expanduser().absolute()
        self.path = self._home / "trust.json"

    def known(self) -> tuple[KnownKey, ...]:
        """All keys that were trusted or revoked, by name. Raises IntegrityError where the file is damaged."""
        return tuple(sorted(self._read().keys, key=lambda key: (key.name, key.id)))

    def state(self, key_id: str) -> State:
        """Whether a key is trusted or revoked."""
        return next((key.state for key in self._read().keys if key.id == key_id), "unknown")

    def label(self, key_id: str) -> str:
        """A key's id, with its name where there is one."""
        name = next((key.name for key in self._read().keys if key.id == key_id), "")
        return f"{key_id} ({name})" if name else key_id

    def trust(self, key: PublicKey, name: str) -> KnownKey:
        """Trust a key from now on. Raises UsageError where it was revoked, or `name` is none or another key's."""
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"{name!r} is no name for a key; use up to 64 letters, digits, '.', '_', '@' and '-'")
        known = KnownKey(id=key.id, name=name, public=key.base64, state="trusted", since=_now())
        with self._changed() as change:
            for other in change.now.keys:
                if other.id == key.id and other.state == "revoked":
                    raise UsageError(
                        f"key {key.id} was revoked on {other.since} and stays so; make a new key. If that was a "
                        f"mistake, remove it from {self.path}"
                    )
                if other.id != key.id and other.name == name:
                    raise UsageError(f"another key is called {name}: {other.id}; give this one another --name")
            change.write(replace(change.now, keys=(*_without(change.now.keys, key.id), known)))
        return known

    def revoke(self, word: str) -> KnownKey:
        """Never take a signature of this key again, whenever it was made.

        `word` is its name, its id, or the first 8 or more digits of it. An id that isn't known here is revoked too.
        Raises UsageError where no key is meant, or several.
        """
        with self._changed() as change:
            known = _named(change.now.keys, word)
            if known.state != "revoked":
                known = replace(known, state="revoked", since=_now())
                change.write(replace(change.now, keys=(*_without(change.now.keys, known.id), known)))
        return known

    def highest(self, origin: str, name: str, tag: str) -> int | None:
        """The highest version that was seen of a tag at an origin; None where none was."""
        return next(
            (one.version for one in self._read().seen if (one.origin, one.name, one.tag) == (origin, name, tag)), None
        )

    def remember(self, origin: str, name: str, tag: str, version: int) -> None:
        """Remember a version, unless a higher one was seen."""
        with self._changed() as change:
            others = tuple(one for one in change.now.seen if (one.origin, one.name, one.tag) != (origin, name, tag))
            before = [one.version for one in change.now.seen if one not in others]
            if max(before, default=-1) < version:
                seen = _Seen(origin=origin, name=name, tag=tag, version=version)
                change.write(replace(change.now, seen=(*others, seen)))

    def _read(self) -> _Trust:
        try:
            return decode(self.path.read_bytes(), _Trust, self.path)
        except FileNotFoundError:
            return _Trust()

    @contextmanager
    def _changed(self) -> Iterator[_Change]:
        with writing(self._home):
            self._home.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._home / "trust.lock")
            lock.acquire()
        try:
            yield _Change(self._read(), lambda new: write_file(self.path, encode(new)))
        finally:
            lock.release()


@dataclass(frozen=True, slots=True)
class _Change:
    now: _Trust
    write: Callable[[_Trust], None]


def _named(keys: tuple[KnownKey, ...], word: str) -> KnownKey:
    found = [key for key in keys if word in (key.name, key.id)]
    if not found and re.fullmatch(rf"[0-9a-f]{{{_PREFIX},63}}", word):
        found = [key for key in keys if key.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{word} means {len(found)} keys: {', '.join(key.id for key in found)}; give more of the id")
    if re.fullmatch(r"[0-9a-f]{64}", word):
        return KnownKey(id=word, name="", public=None, state="trusted", since="")
    there = ", ".join(key.name or key.id for key in keys) or "none"
    raise UsageError(f"no key is called {word}; known here: {there}. To revoke another give its whole id, 64 digits")


def _without(keys: tuple[KnownKey, ...], key_id: str) -> tuple[KnownKey, ...]:
    return tuple(key for key in keys if key.id != key_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
