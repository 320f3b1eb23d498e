"""What a registry asks for when it answers 401: WWW-Authenticate (RFC 9110, 11.6.1; the token specification of
distribution, docs/spec/auth/token.md)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

_SCHEME = re.compile(r"\s*(?P<scheme>[A-Za-z][\w-]*)(?=[\s,]|$)")
_PARAMETER = re.compile(r'[\s,]*(?P<key>[\w-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """One scheme, in lowercase, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def challenges(header: str) -> Iterator[Challenge]:
    """The challenges of a WWW-Authenticate header; what can't be read ends them."""
    position = 0
    while match := _SCHEME.match(header, position):
        position, parameters = match.end(), {}
        while found := _PARAMETER.match(header, position):
            position = found.end()
            quoted = found["quoted"]
            parameters[found["key"].lower()] = found["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        yield Challenge(match["scheme"].lower(), parameters)
        while position < len(header) and header[position] in ", ":
            position += 1


def basic(user: str, password: str) -> str:
    """The Authorization header of a user (RFC 7617)."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
