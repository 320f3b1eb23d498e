"""HTTP for zoos: redirects by hand, credentials for their own origin only, and each failure as one of qzoo's errors."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from qzoo.errors import AuthenticationError, IntegrityError, RemoteError, RemoteInterrupted, UsageError
from qzoo.store.layout import Descriptor
from qzoo.zoo.challenge import basic, challenges
from qzoo.zoo.credentials import origin_of
from qzoo.zoo.remote import CHUNK, DOCUMENT_LIMIT, BlobStream

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

CONNECT_S, READ_S = 5.0, 30.0
"""How long a server may take to accept a connection, and to send the next bytes."""
REDIRECTS = 5
CONNECTIONS = 8
_DIRECTLY = {"http": "", "https": "", "all": ""}
"""No proxy stands between this machine and itself, whatever the environment says."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others when one asks again (RFC 9110, 15.5 and 15.6; RFC 6585, 4)."""


class Readable(Protocol):
    """A body that is sent as it is read. Its length is told beforehand."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


Body = Callable[[], Readable | bytes]
"""Makes a request's body, again for each time that it is sent."""


class Logins(Protocol):
    """Who logs in where; see `qzoo.zoo.credentials`."""

    def for_origin(self, origin: str) -> tuple[str, str] | None:
        """The user name and password for exactly this origin."""

    def for_service(self, origin: str, service: str) -> tuple[str, str] | None:
        """Those that a token service, by its origin, may be told to get a token for a registry's origin."""


class Client:
    """Sends requests to one origin, and to wherever that redirects; credentials go to the origin only."""

    def __init__(self, origin: str, logins: Logins | None, *, insecure: bool = False) -> None:
        self.origin, self._logins, self._insecure = origin, logins, insecure
        self._authorization: dict[str, str] = {}
        self._lock = Lock()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS))
        self._check_secure(origin)

    @contextmanager
    def send(
        self,
        method: str,
        url: str,
        *,
        expect: Collection[int],
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Iterator[Response]:
        """The answer to a request, its content still unread. `scope` is what a token must allow.

        Raises RemoteInterrupted, RemoteError or AuthenticationError, here or while the content is read.
        """
        with _mapped(self.origin):
            response = self._followed(method, url, scope, dict(headers or {}), body)
            try:
                if response.status_code not in expect:
                    raise _refused(method, response)
                yield response
            finally:
                response.close()

    def _followed(self, method: str, url: str, scope: str, headers: dict[str, str], body: Body | None) -> Response:
        for _ in range(REDIRECTS + 1):
            response = self._authorized(method, url, scope, headers, body)
            if response.status_code not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            response.close()
            url = self.resolved(url, response.headers.get("Location", ""))
        raise RemoteError(f"{self.origin} redirects more than {REDIRECTS} times; is it what you meant?")

    def resolved(self, url: str, location: str) -> str:
        """Where a Location header leads from a URL. Raises RemoteError for nowhere, or from https to http."""
        if not location:
            raise RemoteError(f"{self.origin} leads elsewhere without saying where; is it a registry?")
        found = urljoin(url, location)
        if urlsplit(found).scheme != "https" and urlsplit(url).scheme == "https":
            raise RemoteError(
                f"{self.origin} leads from https to {_shown(found)}, where nobody vouches for it; refused"
            )
        self._check_secure(found)
        return found

    def _authorized(self, method: str, url: str, scope: str, headers: dict[str, str], body: Body | None) -> Response:
        own = origin_of(url) == self.origin
        known = self._authorization.get(scope) if own else None
        response = self._once(method, url, headers, body, known)
        if response.status_code != 401:
            return response
        asked = response.headers.get("WWW-Authenticate", "")
        response.close()
        if not own:
            raise AuthenticationError(
                f"{origin_of(url)}, where {self.origin} leads, wants credentials; none are sent there"
            )
        with self._lock:  # one of several threads asks for the token
            fresh = self._authorization.get(scope)
            if fresh in (None, known):
                fresh = self._authorization[scope] = self._answer(asked, scope)
        response = self._once(method, url, headers, body, fresh)
        if response.status_code == 401:
            response.close()
            raise AuthenticationError(
                f"{self.origin} refuses the login it got; give it another: qzoo login {self._host}"
            )
        return response

    @property
    def _host(self) -> str:
        return urlsplit(self.origin).netloc

    def _once(
        self, method: str, url: str, headers: dict[str, str], body: Body | None, authorization: str | None
    ) -> Response:
        self._check_secure(url)
        data = None if body is None else body()
        try:
            return self._session.request(
                method,
                url,
                headers={"User-Agent": "qzoo", "Accept-Encoding": "identity", **headers},
                data=data,
                auth=_Authorization(authorization),
                stream=True,
                allow_redirects=False,
                proxies=_DIRECTLY if is_loopback(url) else None,
                timeout=(CONNECT_S, READ_S),
            )
        finally:
            if data is not None and not isinstance(data, bytes):
                data.close()

    def _answer(self, asked: str, scope: str) -> str:
        """The Authorization header that a challenge asks for. Raises AuthenticationError."""
        found = {one.scheme: one.parameters for one in challenges(asked)}
        if "bearer" in found:
            return f"Bearer {self._token(found['bearer'], scope)}"
        if "basic" not in found:
            raise AuthenticationError(f"{self.origin} wants a login of a kind that qzoo doesn't know: {asked[:100]!r}")
        login = self._logins.for_origin(self.origin) if self._logins else None
        if login is None:
            raise AuthenticationError(f"{self.origin} wants a login: qzoo login {self._host}")
        return basic(*login)

    def _token(self, asked: dict[str, str], scope: str) -> str:
        """A token from the service that a registry names; it is told the registry's login only if the user named it."""
        realm = asked.get("realm", "")
        origin = origin_of(realm)
        wanted = {"service": asked.get("service"), "scope": asked.get("scope") or scope or None}
        query = urlencode({key: value for key, value in wanted.items() if value})
        login = self._logins.for_service(self.origin, origin) if self._logins else None
        url = f"{realm}{'&' if urlsplit(realm).query else '?'}{query}" if query else realm
        with self._once("GET", url, {}, None, None if login is None else basic(*login)) as response:
            if response.status_code != 200:
                service = "" if origin == self.origin else f" --token-service {origin}"
                raise AuthenticationError(
                    f"{origin} gives no token for {self.origin} ({response.status_code}); if that is where it should "
                    f"come from, log in: qzoo login {self._host}{service}"
                )
            return _token_in(read_document(response, self.origin), origin)

    def _check_secure(self, url: str) -> None:
        origin = origin_of(url)
        if origin.startswith("http://") and not (self._insecure or is_loopback(origin)):
            raise UsageError(
                f"{origin} is plain HTTP, where others can read and change what is sent; only this machine is "
                "spoken to so. Use https, or --insecure in a network that you trust"
            )


def is_loopback(origin: str) -> bool:
    """Whether an origin is this machine."""
    host = urlsplit(origin).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_document(response: Response, source: str) -> bytes:
    """An answer's content. Raises RemoteError where it is too long for a document."""
    data = b""
    while part := response.raw.read(CHUNK, decode_content=False):
        data += part
        if len(data) > DOCUMENT_LIMIT:
            raise RemoteError(f"{source} answers with more than {DOCUMENT_LIMIT} bytes where a document was asked for")
    return data


@contextmanager
def open_blob(client: Client, url: str, blob: Descriptor, start: int, scope: str = "") -> Iterator[BlobStream]:
    """A blob's bytes from `start` on, or from 0 where the server can't do that (RFC 9110, 14).

    Raises IntegrityError where the server says that the blob has another size than its descriptor, RemoteError where it
    sends another part than was asked for.
    """
    headers = {"Range": f"bytes={start}-"} if start else {}
    expect = (200, 206, 416) if start else (200,)
    with client.send("GET", url, expect=expect, scope=scope, headers=headers) as response:
        whole = response.status_code != 206
        if response.status_code == 416:  # the server's blob ends before: whether it is whole is seen from its start
            response.close()
            with open_blob(client, url, blob, 0, scope) as stream:
                yield stream
            return
        if not whole:
            _check_range(response.headers.get("Content-Range", ""), start, blob, client.origin)
        length = response.headers.get("Content-Length", "")
        if whole and length.isdecimal() and int(length) != blob.size:
            raise IntegrityError(
                f"{client.origin} offers {length} bytes for {blob.digest}, expected {blob.size}; it isn't that blob"
            )
        yield BlobStream(0 if whole else start, _chunks(response, client.origin))


def _chunks(response: Response, origin: str) -> Iterator[bytes]:
    with _mapped(origin):
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk


def _check_range(sent: str, start: int, blob: Descriptor, origin: str) -> None:
    wanted = f"bytes {start}-{blob.size - 1}/"
    if sent not in (f"{wanted}{blob.size}", f"{wanted}*"):
        raise RemoteError(
            f"{origin} sends the part {sent!r} of {blob.digest} where {wanted}{blob.size} was asked for; try "
            "another mirror"
        )


@dataclass(frozen=True, slots=True)
class _Authorization(requests.auth.AuthBase):
    """Sets the header, or none: given to each request, so that requests takes no login from .netrc or a URL."""

    header: str | None

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self.header is not None:
            request.headers["Authorization"] = self.header
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    token: str = ""
    access_token: str = ""


def _token_in(data: bytes, origin: str) -> str:
    try:
        found = msgspec.json.decode(data, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AuthenticationError(f"{origin} answers with no token: {error}") from error
    token = found.token or found.access_token
    if not re.fullmatch(r"[!-~]+", token):
        raise AuthenticationError(f"{origin} answers with no token that can be sent on")
    return token


def _refused(method: str, response: Response) -> RemoteError | AuthenticationError:
    status, url = response.status_code, _shown(response.url)
    reason = f"{method} {url} is answered with {status}{_said(response)}"
    if status in (401, 403):
        return AuthenticationError(f"{reason}; log in as somebody who may do that: qzoo login {urlsplit(url).netloc}")
    if status in _BUSY:
        return RemoteInterrupted(f"{reason}; try again later")
    return RemoteError(f"{reason}; is it a registry, and is the name right?")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problems:
    errors: list[_Problem]


def _said(response: Response) -> str:
    """The reason in a registry's answer (distribution-spec 1.1, "Error Codes"), if it gives one."""
    try:
        first = msgspec.json.decode(response.raw.read(8192, decode_content=False), type=_Problems).errors[0]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError, HTTPError):
        return ""
    return " (" + re.sub(r"[^ -~]", "?", f"{first.code}: {first.message}")[:200] + ")"


def _shown(url: str) -> str:
    """A URL without its query, which may hold a signature that stands for a login."""
    return url.partition("?")[0]


@contextmanager
def _mapped(origin: str) -> Iterator[None]:
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise RemoteError(f"{origin}: its certificate isn't trusted: {_why(error)}") from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, HTTPError) as error:
        raise RemoteInterrupted(f"{origin} can't be reached, or the connection was cut: {_why(error)}") from error
    except requests.RequestException as error:
        raise RemoteError(f"{origin} can't be asked: {_why(error)}") from error


def _why(error: Exception) -> str:
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", None) or inner)[:200]
