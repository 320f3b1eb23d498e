"""qzoo key: keys that sign, and whom to trust."""

from __future__ import annotations

import hashlib
import io
import sys
from base64 import b64decode

import pytest


@pytest.fixture
def line(qzoo, monkeypatch, tmp_path) -> str:
    """Somebody else's public key, as they hand it on."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("QZOO_HOME", str(tmp_path / "elsewhere"))
        assert qzoo("key", "new").code == 0
        return qzoo("key", "show").out


def test_a_new_key_is_ones_own_and_trusted(qzoo, home):
    made = qzoo("key", "new", "--json").json
    assert (made["name"], made["state"]) == ("default", "trusted")
    assert made["id"] == hashlib.sha256(b64decode(made["public"])).hexdigest()
    assert made["file"] == str(home / "keys/default.pem")
    assert qzoo("key", "list", "--json").json == {"keys": [made]}


def test_the_private_key_is_never_shown(qzoo, home):
    outs = [qzoo(*words) for words in (("key", "new"), ("key", "list"), ("key", "show"), ("key", "show", "--json"))]
    secret = (home / "keys/default.pem").read_text().splitlines()[1]
    assert all(secret not in ended.out + ended.err for ended in outs)


def test_a_public_key_goes_from_one_home_to_another_by_a_file_named_after_its_owner(qzoo, line, tmp_path):
    (tmp_path / "ann.pub").write_text(line)
    trusted = qzoo("key", "trust", tmp_path / "ann.pub", "--json").json
    assert (trusted["name"], trusted["state"], trusted["file"]) == ("ann", "trusted", None)
    assert trusted["public"] == line.split()[1]


def test_a_public_key_is_read_from_stdin_or_given_as_the_line_itself(qzoo, line, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))
    first = qzoo("key", "trust", "-", "--name", "ann", "--json").json
    assert qzoo("key", "trust", line.strip(), "--name", "ann", "--json").json["id"] == first["id"]
    assert len(qzoo("key", "list").out.splitlines()) == 2


def test_a_revoked_key_is_listed_as_such_and_not_trusted_again(qzoo, line):
    key = qzoo("key", "trust", line, "--name", "ann", "--json").json["id"]
    assert qzoo("key", "revoke", "ann", "--json").json["state"] == "revoked"
    ended = qzoo("key", "trust", line, "--name", "ann")
    assert ended.code == 2
    assert f"key {key} was revoked on " in ended.err
    assert f"{key}  revoked" in qzoo("key", "list").out


def test_no_keys_is_said_with_what_to_do(qzoo):
    assert "qzoo key new" in qzoo("key", "list").out
    assert qzoo("key", "show").code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("new", "../x"), "is no name for a key"),
        (("show", "nobody"), "there is no key nobody"),
        (("trust", "no/such/file"), "can't be read as a public key"),
        (("trust", "ssh-ed25519 AAAA me"), "is no public key"),
        (("revoke", "nobody"), "no key is called nobody"),
    ],
)
def test_what_is_no_key_ends_with_2(qzoo, words, says):
    ended = qzoo("key", *words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_a_second_key_of_a_name_is_refused(qzoo, line):
    qzoo("key", "trust", line, "--name", "default")
    ended = qzoo("key", "new")
    assert (ended.code, "a key called default is known here already" in ended.err) == (2, True)
    assert qzoo("key", "new", "mine").code == 0


def test_a_file_too_long_for_a_key_is_not_read_whole(qzoo, tmp_path):
    (tmp_path / "big.pub").write_text("x " * 10_000_000)
    ended = qzoo("key", "trust", tmp_path / "big.pub")
    assert (ended.code, len(ended.err) < 500) == (2, True)
