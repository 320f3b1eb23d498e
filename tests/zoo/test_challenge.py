"""WWW-Authenticate headers, as registries write them."""

from __future__ import annotations

import base64

import pytest

from qzoo.zoo.challenge import Challenge, basic, challenges


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Basic realm="zoo"', [Challenge("basic", {"realm": "zoo"})]),
        (
            'Bearer realm="https://auth.example.com/token",service="reg",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example.com/token",
                        "service": "reg",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            'Negotiate, Bearer realm="x", error=invalid_token, Basic realm="a \\"b\\""',
            [
                Challenge("negotiate", {}),
                Challenge("bearer", {"realm": "x", "error": "invalid_token"}),
                Challenge("basic", {"realm": 'a "b"'}),
            ],
        ),
        ("", []),
        ("=nonsense", []),
    ],
)
def test_a_header_is_read_scheme_by_scheme(header, found):
    assert list(challenges(header)) == found


def test_a_password_may_hold_what_utf_8_can():
    assert base64.b64decode(basic("alice", "pässword:1").removeprefix("Basic ")) == "alice:pässword:1".encode()
