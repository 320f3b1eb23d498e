"""Logins: kept where only their owner reads them, and given to exactly the origin they are for."""

from __future__ import annotations

import pytest

from qzoo.errors import IntegrityError, UsageError
from qzoo.zoo.credentials import Credentials, origin_of

ORIGIN = "https://r.example.com"


@pytest.fixture
def logins(tmp_path) -> Credentials:
    return Credentials(tmp_path / "home")


def test_a_login_is_for_exactly_its_origin(logins):
    logins.save(ORIGIN, "me", "secret")
    assert logins.for_origin(ORIGIN) == ("me", "secret")
    for other in ("http://r.example.com", f"{ORIGIN}:444", "https://example.com", "https://r.example.com.evil.org"):
        assert logins.for_origin(other) is None


def test_a_token_service_gets_a_registrys_login_only_if_it_was_named_for_it(logins):
    logins.save(ORIGIN, "me", "secret", "https://auth.example.com")
    logins.save("https://auth.example.com", "me", "other")
    assert logins.for_service(ORIGIN, ORIGIN) == ("me", "secret")
    assert logins.for_service(ORIGIN, "https://auth.example.com") == ("me", "secret")
    assert logins.for_service(ORIGIN, "https://evil.org") is None
    assert logins.for_service("https://evil.org", "https://auth.example.com") is None
    assert logins.for_origin("https://auth.example.com") == ("me", "other")


def test_only_the_owner_reads_the_file_also_after_it_was_changed(logins):
    for number in range(2):
        logins.save(f"{ORIGIN}:{number + 1}", "me", "secret")
        assert logins.path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_can_read_is_refused(logins):
    logins.save(ORIGIN, "me", "secret")
    logins.path.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        logins.for_origin(ORIGIN)


def test_a_login_replaces_the_earlier_one_and_leaves_others(logins):
    logins.save(ORIGIN, "me", "old")
    logins.save("https://other", "you", "theirs")
    logins.save(ORIGIN, "me", "new")
    assert logins.for_origin(ORIGIN) == ("me", "new")
    assert logins.for_origin("https://other") == ("you", "theirs")


def test_a_forgotten_login_is_gone(logins):
    logins.save(ORIGIN, "me", "secret")
    assert logins.forget(ORIGIN)
    assert logins.for_origin(ORIGIN) is None
    assert not logins.forget(ORIGIN)
    assert b"secret" not in logins.path.read_bytes()


def test_a_damaged_file_is_named_and_no_secret_is_shown(logins):
    logins.save(ORIGIN, "me", "hunter2")
    logins.path.write_bytes(logins.path.read_bytes().replace(b'"user"', b'"usr"'))
    with pytest.raises(IntegrityError, match=str(logins.path)) as raised:
        logins.for_origin(ORIGIN)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://R.Example.com/v2/", ORIGIN),
        ("https://r.example.com:443/x?y=1", ORIGIN),
        ("https://r.example.com:444", f"{ORIGIN}:444"),
        ("http://localhost:80/", "http://localhost"),
        ("HTTP://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://[::1]:5000/x", "https://[::1]:5000"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, origin):
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "r.example.com",
        "ftp://x",
        "https://",
        "https:///x",
        "https://x:port",
        "https://x:99999",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_http_address_has_no_origin(url):
    with pytest.raises(UsageError, match="is no http or https address"):
        origin_of(url)


@pytest.mark.parametrize("url", ["https://me:hunter2@x/", "https://hunter2@x", "https://:hunter2@x"])
def test_an_address_with_a_password_is_refused_and_not_shown(url):
    with pytest.raises(UsageError, match="holds a user name or password") as raised:
        origin_of(url)
    assert "hunter2" not in str(raised.value)
