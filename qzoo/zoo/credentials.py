"""Registries' user names and passwords: QZOO_HOME/credentials.json, readable by its owner only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from filelock import FileLock

from qzoo.errors import UsageError
from qzoo.records import decode, encode
from qzoo.writing import new_file, writing

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    user: str
    password: str = field(repr=False)
    service: str | None = None  # the origin of the registry's token service, where that is another


@dataclass(frozen=True, slots=True, kw_only=True)
class _Logins:
    origins: dict[str, _Login] = field(default_factory=dict)
    schema: Literal[1] = 1


def origin_of(url: str) -> str:
    """An http(s) URL's origin (RFC 6454): scheme, host in lowercase, and the port where it isn't the scheme's own.

    Raises UsageError for another URL, or one with a user name or password in it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in _PORTS:
        raise UsageError(f"{url!r} is no http or https address")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"the address of {host} holds a user name or password; leave it out and use qzoo login")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port not in (None, _PORTS[parts.scheme]) else "")


class Credentials:
    """The logins of one home directory, each for one origin."""

    def __init__(self, home: Path) -> None:
        self._home = home.expanduser().absolute()
        self.path = self._home / "credentials.json"

    def for_origin(self, origin: str) -> tuple[str, str] | None:
        """The user name and password for exactly this origin (`origin_of`). Raises UsageError, IntegrityError."""
        login = self._read().origins.get(origin)
        return None if login is None else (login.user, login.password)

    def for_service(self, origin: str, service: str) -> tuple[str, str] | None:
        """The same, to get a token for a registry's origin from a token service: its own, or the one that was named.

        The registry says which service to ask. Would any login for that service do, a registry could have itself given
        tokens for another.
        """
        login = self._read().origins.get(origin)
        return None if login is None or service not in (origin, login.service) else (login.user, login.password)

    def origins(self) -> list[str]:
        """Where there is a login for."""
        return sorted(self._read().origins)

    def save(self, origin: str, user: str, password: str, service: str | None = None) -> None:
        """Keep a login; it replaces the origin's earlier one. Raises StoreError."""
        self._change(lambda now: {**now, origin: _Login(user=user, password=password, service=service)})

    def forget(self, origin: str) -> bool:
        """Remove a login. False where there was none."""
        there = origin in self._read().origins
        if there:
            self._change(lambda now: {key: login for key, login in now.items() if key != origin})
        return there

    def _change(self, change: Callable[[dict[str, _Login]], dict[str, _Login]]) -> None:
        with writing(self._home):
            self._home.mkdir(parents=True, exist_ok=True)
        with FileLock(self._home / "credentials.lock"):
            data = encode(_Logins(origins=change(self._read().origins)))
            with new_file(self.path, mode=0o600) as temporary:
                temporary.write_bytes(data)

    def _read(self) -> _Logins:
        try:
            if self.path.stat().st_mode & 0o077:
                raise UsageError(f"{self.path} can be read by others than its owner; chmod 600 it")
            return decode(self.path.read_bytes(), _Logins, self.path)
        except FileNotFoundError:
            return _Logins()
