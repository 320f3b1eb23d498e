"""A zoo behind https: whose certificate is trusted, and what an answer may not lead to."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from qzoo.errors import RemoteError
from qzoo.zoo.connect import connect


def certificate(folder: Path) -> Path:
    """A file with a certificate for 127.0.0.1 that nobody but itself vouches for, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    return path


class Empty(BaseHTTPRequestHandler):
    """An empty layout; what is below /moved is said to lie at a port in plain HTTP."""

    def do_GET(self) -> None:
        body = b'{"schemaVersion":2,"manifests":[]}'
        moved = self.path.startswith("/moved")
        self.send_response(302 if moved else 200)
        self.send_header("Location", "http://127.0.0.1:1/index.json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def secure(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of a server behind https, and the certificate to trust it by."""
    path = certificate(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # a client that doesn't trust it hangs up
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}", path
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(secure, monkeypatch):
    monkeypatch.setattr("qzoo.zoo.retry.Backoff.wait", lambda *_: pytest.fail("it is tried again"))
    with pytest.raises(RemoteError, match="its certificate isn't trusted") as raised:
        connect(secure[0]).names()
    assert raised.value.exit_code == 3


def test_insecure_does_not_mean_that_any_certificate_will_do(secure):
    with pytest.raises(RemoteError, match="its certificate isn't trusted"):
        connect(secure[0], insecure=True).names()


def test_a_certificate_that_the_environment_names_is_trusted(secure, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure[1]))
    assert connect(secure[0]).names() == []


def test_no_proxy_is_asked_for_this_machine(secure, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure[1]))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert connect(secure[0]).names() == []


def test_https_that_leads_to_plain_http_is_not_followed_not_even_to_this_machine(secure, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(secure[1]))
    for insecure in (False, True):
        with pytest.raises(RemoteError, match=r"leads from https to http://127\.0\.0\.1:1/index\.json"):
            connect(f"{secure[0]}/moved", insecure=insecure).names()
