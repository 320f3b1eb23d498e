"""docker-registry that takes tokens only (distribution's "Token Authentication"), from a service that signs them."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID
from docker_registry import RunningRegistry, docker_registry
from faulty import Answer, Asked, Faulty, faulty

from qzoo.errors import AuthenticationError
from qzoo.store.layout import Descriptor
from qzoo.zoo.challenge import basic
from qzoo.zoo.connect import connect
from qzoo.zoo.remote import index_of

PUSHER, READER = ("pusher", "can push"), ("reader", "can read")
MAY = {PUSHER: ["pull", "push"], READER: ["pull"]}
DATA = random.Random(5).randbytes(100_000)
BLOB = Descriptor(mediaType="text/plain", digest=f"sha256:{hashlib.sha256(DATA).hexdigest()}", size=len(DATA))


class Signer:
    """Makes tokens: JSON Web Tokens (RFC 7519) signed with ES256 (RFC 7518, 3.4)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")]), datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())

    def token(self, user: str, scope: str, actions: list[str]) -> str:
        now, der = int(time.time()), self.certificate.public_bytes(serialization.Encoding.DER)
        kind, _, rest = scope.partition(":")
        access = [{"type": kind, "name": rest.rpartition(":")[0], "actions": actions}] if scope else []
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": "tokens", "sub": user, "aud": "zoo", "exp": now + 300, "nbf": now - 60, "iat": now, "jti": "1"}
        parts = [header, {**claims, "access": access}]
        signed = ".".join(_text(json.dumps(part).encode()) for part in parts)
        r, s = utils.decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Faulty, Signer]]:
    """The token service: it lets known users do what they may, and anybody else nothing."""
    signer = Signer()

    def behind(asked: Asked) -> Answer:
        (scope,) = parse_qs(urlsplit(asked.path).query).get("scope", [""])
        user = next((user for user in MAY if basic(*user) == asked.headers.get("Authorization")), None)
        if user is None and "Authorization" in asked.headers:
            return Answer(401, {}, b"")
        token = signer.token(user[0] if user else "", scope, MAY[user] if user else [])
        return Answer(200, {}, json.dumps({"token": token}).encode())

    with faulty(behind) as running:
        yield running, signer


@pytest.fixture(scope="module")
def registry(service, tmp_path_factory) -> Iterator[RunningRegistry]:
    """docker-registry that believes the service."""
    running, signer = service
    folder = tmp_path_factory.mktemp("token-registry")
    (folder / "root.pem").write_bytes(signer.certificate.public_bytes(serialization.Encoding.PEM))
    options = f"realm: '{running.url}/token', service: zoo, issuer: tokens, rootcertbundle: {folder / 'root.pem'}"
    with docker_registry(folder, f"auth: {{token: {{{options}}}}}\n") as made:
        yield made


class Login:
    """One login, for one token service."""

    def __init__(self, service: Faulty, user: tuple[str, str]) -> None:
        self._service, self._user = service.url, user

    def for_origin(self, origin: str) -> None:
        return None

    def for_service(self, origin: str, service: str) -> tuple[str, str] | None:
        return self._user if service == self._service else None


def test_who_may_push_pushes_and_who_may_read_reads_but_does_not_push(service, registry, tmp_path):
    (tmp_path / "blob").write_bytes(DATA)
    pusher, reader = (connect(registry.location, Login(service[0], user)) for user in (PUSHER, READER))
    pusher.put_blob("net", BLOB, tmp_path / "blob", lambda _: None)
    pusher.put_document("net", "int8", index_of([]))
    assert reader.find("net", "int8") == index_of([])
    with reader.blob("net", BLOB) as stream:
        assert b"".join(stream.chunks) == DATA
    assert reader.tags("net") == ["int8"]
    with pytest.raises(AuthenticationError, match="refuses the login"):
        reader.put_document("net", "other", index_of([]))


def test_nobody_gets_a_token_that_opens_nothing(service, registry):
    with pytest.raises(AuthenticationError, match="refuses the login") as raised:
        connect(registry.location).find("net", "int8")
    assert raised.value.exit_code == 3


def test_a_wrong_password_gets_no_token(service, registry):
    remote = connect(registry.location, Login(service[0], ("pusher", "guessed")))
    with pytest.raises(AuthenticationError, match=r"gives no token for .*--token-service http://127.0.0.1:"):
        remote.find("net", "int8")


def test_one_token_serves_for_many_requests_of_one_kind(service, registry):
    remote = connect(registry.location, Login(service[0], PUSHER))
    service[0].asked.clear()
    for _ in range(3):
        remote.find("net", "none")
        remote.tags("net")
    assert len(service[0].asked) == 1
