"""What `qzoo key` shows of a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from qzoo.store import Store
    from qzoo.zoo.trust import KnownKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyObject:
    """`qzoo key new|show|trust|revoke --json`: a key. `id` is the SHA-256 of the public key's 32 bytes.

    `public` is its base64, null where only the id of a revoked key is known. `file` is one's own private key, null for
    somebody else's. `since` is when it was trusted or revoked.
    """

    name: str
    id: str
    public: str | None
    state: Literal["trusted", "revoked", "unknown"]
    since: str | None
    file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysObject:
    """`qzoo key list --json`: by name."""

    keys: tuple[KeyObject, ...]


def keys_of(store: Store) -> tuple[KeyObject, ...]:
    """One's own keys, and those that were trusted or revoked."""
    from qzoo.zoo.keys import KeyRing
    from qzoo.zoo.trust import TrustStore

    ring, known = KeyRing(store.home), {key.id: key for key in TrustStore(store.home).known()}
    own = {ring.get(name).public: name for name in ring.names()}
    found = [
        replace(_shown(known[key.id]), name=name, file=str(ring.path(name)))
        if key.id in known
        else KeyObject(name=name, id=key.id, public=key.base64, state="unknown", since=None, file=str(ring.path(name)))
        for key, name in own.items()
    ]
    ids = {key.id for key in own}
    found += [_shown(key) for key in known.values() if key.id not in ids]
    return tuple(sorted(found, key=lambda key: (key.name, key.id)))


def key_of(store: Store, key_id: str) -> KeyObject:
    """The key with this id."""
    return next(key for key in keys_of(store) if key.id == key_id)


def show(key: KeyObject, lines: Callable[[KeyObject], str], *, as_json: bool) -> None:
    """Print a key, as JSON or in these lines."""
    from qzoo.records import encode

    click.echo(encode(key) if as_json else lines(key), nl=not as_json)


def _shown(key: KnownKey) -> KeyObject:
    return KeyObject(
        name=key.name,
        id=key.id,
        public=key.public,
        state=key.state,
        since=key.since,
        file=None,
    )
