"""Signatures of engines. Each is an image manifest that stands in the tag's index beside what it signs.

So whoever copies the index copies them (`skopeo copy --all`), and each engine keeps its own signer when the engines of
several machines are merged into one tag. The manifest has no content but an annotation, the DSSE envelope; its config
and its layer are OCI's empty descriptor (image-spec 1.1, manifest.md, "Guidance for an Empty Descriptor").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from qzoo.errors import SignatureError
from qzoo.store.layout import MANIFEST, SIGNS, Descriptor
from qzoo.zoo.envelope import seal, unseal
from qzoo.zoo.statement import EngineStatement

if TYPE_CHECKING:
    from qzoo.zoo.keys import PrivateKey
    from qzoo.zoo.trust import TrustStore

SIGNATURE = "application/vnd.qzoo.signature.v1"
ENVELOPE, KEY_ID = "dev.qzoo.envelope", "dev.qzoo.key"
EMPTY_BLOB = b"{}"
EMPTY = Descriptor(
    mediaType="application/vnd.oci.empty.v1+json",
    digest=f"sha256:{hashlib.sha256(EMPTY_BLOB).hexdigest()}",
    size=len(EMPTY_BLOB),
)
Status = Literal["trusted", "revoked", "untrusted", "invalid", "unsigned"]
_RANK: tuple[Status, ...] = ("trusted", "revoked", "untrusted", "invalid", "unsigned")


@dataclass(frozen=True, slots=True)
class Sibling:
    """A signature to put into an index: its descriptor, and its image manifest, which needs the blob EMPTY_BLOB."""

    descriptor: Descriptor
    manifest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether an engine may be loaded for its signatures, by which key (its id), and why.

    trusted: a trusted key signed it, under this name. revoked, untrusted: a revoked, an unknown key did. invalid: no
    signature fits. unsigned: there is none. Of several signatures the best one counts, in this order.
    """

    status: Status
    key: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    annotations: dict[str, str]


def model_name(name: str) -> str:
    """A reference's name without its folders: what is signed, so that a mirror may put it elsewhere."""
    return name.rpartition("/")[2]


def sign_child(child: Descriptor, key: PrivateKey, *, name: str) -> Sibling:
    """Sign a bundle's image manifest, published as `name`; always the same bytes for the same three."""
    statement = EngineStatement(name=model_name(name), digest=child.digest, key=key.public.base64)
    annotations = {SIGNS: child.digest, KEY_ID: key.public.id}
    manifest = signed_manifest(SIGNATURE, {**annotations, ENVELOPE: seal(statement, key)})
    return Sibling(describe(manifest, annotations), manifest)


def verdict(child_digest: str, siblings: Iterable[bytes], trust: TrustStore, *, name: str) -> Verdict:
    """What the signatures (the manifests that stand beside a child and name its digest) say of it.

    `name` is what it was asked for as: an engine signed as another model isn't taken for this one.
    """
    found = [_judged(child_digest, manifest, trust, model_name(name)) for manifest in siblings]
    none = Verdict(status="unsigned", key=None, reason="it has no signature")
    return min([*found, none], key=lambda one: _RANK.index(one.status))


def signed_manifest(artifact_type: str, annotations: dict[str, str], **more: object) -> bytes:
    """An image manifest without content, its fields in the order of the specification."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": EMPTY.as_json(),
        "layers": [EMPTY.as_json()],
        **more,
        "annotations": dict(sorted(annotations.items())),
    }
    return msgspec.json.encode(document)


def describe(manifest: bytes, annotations: dict[str, str]) -> Descriptor:
    """The descriptor of an image manifest."""
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    return Descriptor(mediaType=MANIFEST, digest=digest, size=len(manifest), annotations=annotations)


def _judged(child_digest: str, manifest: bytes, trust: TrustStore, name: str) -> Verdict:
    try:
        statement, key = unseal(_envelope(manifest), EngineStatement)
    except SignatureError as error:
        return Verdict(status="invalid", key=None, reason=str(error))
    if statement.digest != child_digest:
        reason = f"its signature is of another engine: expected {child_digest}, found {statement.digest}"
        return Verdict(status="invalid", key=key.id, reason=reason)
    if statement.name != name:
        reason = f"it was signed as {statement.name}, not as {name}"
        return Verdict(status="invalid", key=key.id, reason=reason)
    state = trust.state(key.id)
    if state == "unknown":
        return Verdict(
            status="untrusted", key=key.id, reason=f"it was signed by key {key.id}, which isn't trusted here"
        )
    return Verdict(status=state, key=key.id, reason=f"it was signed by key {trust.label(key.id)}, which is {state}")


def _envelope(manifest: bytes) -> str:
    try:
        return msgspec.json.decode(manifest, type=_Manifest).annotations[ENVELOPE]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise SignatureError(f"its signature can't be read: {error!r}") from error
