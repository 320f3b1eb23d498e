"""Where a login is for, and whether it is taken there."""

from __future__ import annotations

from dataclasses import dataclass

from qzoo.errors import UsageError
from qzoo.zoo.connect import connect
from qzoo.zoo.credentials import origin_of
from qzoo.zoo.registry import Registry
from qzoo.zoo.static import StaticTree


@dataclass(frozen=True, slots=True)
class _Untried:
    """One login that is not kept yet."""

    origin: str
    login: tuple[str, str]
    service: str | None

    def for_origin(self, origin: str) -> tuple[str, str] | None:
        return self.login if origin == self.origin else None

    def for_service(self, origin: str, service: str) -> tuple[str, str] | None:
        return self.login if origin == self.origin and service in (origin, self.service) else None


def origin_at(location: str) -> str:
    """The origin of a registry or static tree. Raises UsageError for a folder, or plain HTTP to another machine."""
    remote = connect(location)
    if isinstance(remote, Registry):
        return remote.origin
    if isinstance(remote, StaticTree):
        return origin_of(location)
    raise UsageError(f"{location} is a folder; there is nothing to log in to")


def try_login(location: str, user: str, password: str, service: str | None = None) -> None:
    """Ask a registry or static tree with this login. Raises AuthenticationError where it is refused, or RemoteError.

    `service` is the origin of its token service, where that is another.
    """
    logins = _Untried(origin_at(location), (user, password), service)
    remote = connect(location, logins)
    if isinstance(remote, Registry):
        remote.check()
    else:
        remote.names()
