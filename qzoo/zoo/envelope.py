"""Signed statements in a DSSE envelope (secure-systems-lab/dsse, envelope.md and protocol.md, version 1.0)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from qzoo.errors import SignatureError
from qzoo.zoo.keys import PrivateKey, PublicKey
from qzoo.zoo.statement import LIMIT, EngineStatement, IndexStatement, S, encode, parse

PAYLOAD = "application/vnd.qzoo.statement.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signature:
    keyid: str
    sig: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    payload: str
    payloadType: str  # noqa: N815 - DSSE's own name
    signatures: tuple[_Signature, ...]


def seal(statement: EngineStatement | IndexStatement, key: PrivateKey) -> str:
    """The envelope of a statement, signed by its key; always the same for the same two."""
    body = encode(statement)
    signature = _Signature(keyid=key.public.id, sig=_text(key.sign(_authenticated(body))))
    envelope = _Envelope(payload=_text(body), payloadType=PAYLOAD, signatures=(signature,))
    return msgspec.json.encode(envelope).decode()


def unseal(envelope: str, kind: type[S]) -> tuple[S, PublicKey]:
    """The statement in an envelope, and the key that it says signed it and that did. Raises SignatureError.

    Whether the key is trusted is not asked.
    """
    found, body, signature = _opened(envelope)
    statement = parse(body, kind)
    key = PublicKey.decode(statement.key)
    if found.payloadType != PAYLOAD or not key.verifies(signature, _authenticated(body)):
        raise SignatureError(f"the signature by key {key.id} doesn't fit what it signs; don't use what it came with")
    return statement, key


def _opened(envelope: str) -> tuple[_Envelope, bytes, bytes]:
    if len(envelope) > 4 * LIMIT:
        raise SignatureError(f"a signature of {len(envelope)} characters is too long; don't use what it came with")
    try:
        found = msgspec.json.decode(envelope, type=_Envelope)
        (signature,) = found.signatures
        return found, _bytes(found.payload), _bytes(signature.sig)
    except (msgspec.DecodeError, binascii.Error, RecursionError, ValueError) as error:
        raise SignatureError(f"the signature can't be read: {error}; don't use what it came with") from error


def _authenticated(body: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is really signed."""
    kind = PAYLOAD.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
