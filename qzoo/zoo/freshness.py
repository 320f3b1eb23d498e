"""Freshness of a tag: a signed statement of which index it means, so that an older one isn't taken for the newest.

It vouches for no engine: each has its own signature. An index can't hold a signature of itself, so the statement is a
referrer: an image manifest whose `subject` is the index, listed in the index under the tag `sha256-<hex>` of the
subject's digest (distribution-spec 1.1, "Referrers Tag Schema"). The envelope is an annotation, there too: one request
reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from qzoo.errors import IntegrityError, SignatureError
from qzoo.store.layout import INDEX, Descriptor
from qzoo.zoo.envelope import seal, unseal
from qzoo.zoo.keys import PublicKey
from qzoo.zoo.signature import ENVELOPE, describe, signed_manifest
from qzoo.zoo.statement import IndexStatement

if TYPE_CHECKING:
    from qzoo.zoo.keys import PrivateKey
    from qzoo.zoo.trust import TrustStore

FRESHNESS = "application/vnd.qzoo.freshness.v1"
VALID = timedelta(days=365)
"""How long a statement holds unless the tag is pushed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """The tag a statement is of. `registry` is its host and port; empty for a folder or a static tree of files."""

    registry: str
    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.name}:{self.tag}" if self.registry else f"{self.name}:{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """What a trusted key, by its id, says of a tag."""

    version: int
    expires: datetime
    key: str


@dataclass(frozen=True, slots=True)
class Referrer:
    """A statement to push: its image manifest (which needs the blob EMPTY_BLOB), and that manifest's descriptor."""

    descriptor: Descriptor
    manifest: bytes


def referrers_tag(digest: str) -> str:
    """The tag under which a registry without the referrers API lists what refers to a digest."""
    return digest.replace(":", "-", 1)


def is_referrers_tag(tag: str) -> bool:
    """Whether a tag is one of these, and no tag of a model."""
    return re.fullmatch(r"sha256-[0-9a-f]{64}", tag) is not None


def sign_index(
    index: Descriptor,
    tagged: Tagged,
    key: PrivateKey,
    *,
    above: int = 0,
    now: datetime | None = None,
    valid: timedelta = VALID,
) -> Referrer:
    """State that a tag means this index from now on. Its version is the time in seconds, but more than `above`."""
    seconds = int((now or datetime.now(UTC)).timestamp())
    statement = IndexStatement(
        registry=tagged.registry,
        name=tagged.name,
        tag=tagged.tag,
        digest=index.digest,
        version=max(seconds, above + 1),
        expires=seconds + int(valid.total_seconds()),
        key=key.public.base64,
    )
    annotations = {ENVELOPE: seal(statement, key)}
    subject = Descriptor(mediaType=index.mediaType, digest=index.digest, size=index.size)
    manifest = signed_manifest(FRESHNESS, annotations, subject=subject.as_json())
    return Referrer(describe(manifest, annotations), manifest)


def list_referrer(before: bytes | None, referrer: Referrer) -> bytes:
    """The index for the referrers' tag: `before`, what is there, with our older statements replaced by this one."""
    others = [] if before is None else [one for one in _listed(before) if one.get("artifactType") != FRESHNESS]
    own = {**referrer.descriptor.as_json(), "artifactType": FRESHNESS}
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, own]})


def stated_version(referrers: bytes | None, trust: TrustStore, own: PublicKey) -> int:
    """The highest version that a referrers' index states by one's own or a trusted key; 0 without one. For `above`.

    Others' don't count: anybody could state the highest version there is, and so end all pushes.
    """
    versions = [0]
    for envelope in [] if referrers is None else _envelopes(referrers):
        try:
            statement, key = unseal(envelope, IndexStatement)
        except SignatureError:
            continue  # whoever pushes puts a valid one in its place
        if key == own or trust.state(key.id) == "trusted":
            versions.append(statement.version)
    return max(versions)


def check_index(
    referrers: bytes | None, tagged: Tagged, digest: str, trust: TrustStore, *, origin: str, now: datetime | None = None
) -> Freshness | None:
    """Check that a tag still means what it meant, and remember its version.

    `referrers` is the index under `referrers_tag(digest)`, None where there is none; `digest` what the tag leads to;
    `origin` where it was read, whose versions are remembered. None: no trusted key ever stated its version, which is so
    where it was pushed unsigned or mirrored without its referrers.

    Raises SignatureError where a newer version was seen (rollback), the statement has expired, or there is none though
    one was seen before.
    """
    found, faults = _statements(referrers, tagged, digest, trust)
    highest = trust.highest(origin, tagged.name, tagged.tag)
    if not found and highest is None:
        return None
    otherwise = f"ask who publishes it to push it again, or name what you want by its digest, {tagged.name}@sha256:..."
    if not found:
        why = "; ".join(faults) or "there is none"
        raise SignatureError(f"{tagged}: no trusted key states its version now ({why}), as one did before; {otherwise}")
    newest = max(found, key=lambda one: one.version)
    if highest is not None and newest.version < highest:
        raise SignatureError(
            f"{tagged} was rolled back: version {newest.version} of it is older than {highest}, which was seen here; "
            f"{otherwise}"
        )
    expires = datetime.fromtimestamp(newest.expires, UTC)
    if expires <= (now or datetime.now(UTC)):
        raise SignatureError(f"{tagged}: its version has expired on {expires:%Y-%m-%d %H:%M} UTC; {otherwise}")
    trust.remember(origin, tagged.name, tagged.tag, newest.version)
    return Freshness(version=newest.version, expires=expires, key=PublicKey.decode(newest.key).id)


def _statements(
    referrers: bytes | None, tagged: Tagged, digest: str, trust: TrustStore
) -> tuple[list[IndexStatement], list[str]]:
    """The statements of trusted keys on this tag and digest, and what is wrong with the others."""
    found, faults = [], []
    for envelope in [] if referrers is None else _envelopes(referrers):
        try:
            statement, key = unseal(envelope, IndexStatement)
        except SignatureError as error:
            faults.append(str(error))
            continue
        of = Tagged(registry=statement.registry, name=statement.name, tag=statement.tag)
        if trust.state(key.id) != "trusted":
            faults.append(f"key {trust.label(key.id)} is {trust.state(key.id)}")
        elif of != tagged or statement.digest != digest:
            faults.append(f"it is of {of}@{statement.digest}, not of {tagged}@{digest}")
        else:
            found.append(statement)
    return found, faults


def _envelopes(referrers: bytes) -> list[str]:
    annotated = [one.get("annotations") for one in _listed(referrers) if one.get("artifactType") == FRESHNESS]
    return [str(one[ENVELOPE]) for one in annotated if isinstance(one, dict) and ENVELOPE in one]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Referrers:
    manifests: list[dict[str, Any]]


def _listed(referrers: bytes) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(referrers, type=_Referrers).manifests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"the list of referrers is no image index: {error}; fetch it again") from error
