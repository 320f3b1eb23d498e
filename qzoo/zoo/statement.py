"""What is signed: small statements in canonical JSON, each of one type, and none can be taken for another.

Canonical: UTF-8, keys sorted, no white space. `parse` takes these bytes only, so one statement has one form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import msgspec

from qzoo.errors import SignatureError, UsageError
from qzoo.zoo.keys import PublicKey

LIMIT = 4096
"""The longest statement that is read, in bytes."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""An integer that every JSON reader keeps (RFC 8259, 6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatement:
    """ "I vouch for this engine": the digest of its image manifest, and the model it is published as.

    The digest covers every byte of the bundle. `name` has no registry and no folder, so that a mirror may have others.
    `key` is the signer's public key in base64.
    """

    name: str
    digest: str
    key: str
    type: Literal["dev.qzoo.engine.v1"] = "dev.qzoo.engine.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatement:
    """ "This is what the tag means now": the digest of its image index. It vouches for no engine.

    `version` grows with each push. `expires` is in Unix seconds.
    """

    registry: str
    name: str
    tag: str
    digest: str
    version: Count
    expires: Count
    key: str
    type: Literal["dev.qzoo.index.v1"] = "dev.qzoo.index.v1"


S = TypeVar("S", EngineStatement, IndexStatement)


def encode(statement: EngineStatement | IndexStatement) -> bytes:
    """The statement's canonical bytes."""
    return msgspec.json.encode(statement, order="sorted")


def parse(data: bytes, kind: type[S]) -> S:
    """Read a statement. Raises SignatureError unless the bytes are the canonical form of a valid one of that kind."""
    if len(data) > LIMIT:
        raise SignatureError(f"a statement of {len(data)} bytes is longer than {LIMIT}; don't use what it came with")
    try:
        statement = msgspec.json.decode(data, type=kind)
        PublicKey.decode(statement.key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, UsageError) as error:
        raise SignatureError(f"what was signed is no {kind.__name__}: {error}; don't use what it came with") from error
    if re.fullmatch(r"sha256:[0-9a-f]{64}", statement.digest) is None or encode(statement) != data:
        raise SignatureError(f"what was signed is no {kind.__name__} in canonical form; don't use what it came with")
    return statement
