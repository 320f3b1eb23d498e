"""Key files and public keys, against OpenSSH's and RFC 8032's own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from qzoo.errors import UsageError
from qzoo.zoo.keys import KeyRing, PrivateKey, PublicKey

# RFC 8032, 7.1, TEST 2: secret key, public key, message, signature
SECRET = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
MESSAGE = "72"
SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_signatures_are_those_of_the_rfc():
    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SECRET)))
    assert key.public.raw.hex() == PUBLIC
    assert key.sign(bytes.fromhex(MESSAGE)).hex() == SIGNATURE
    assert key.public.verifies(bytes.fromhex(SIGNATURE), bytes.fromhex(MESSAGE))


def test_a_signature_of_other_bytes_or_with_a_flipped_bit_does_not_verify():
    public, signature = PublicKey(bytes.fromhex(PUBLIC)), bytearray.fromhex(SIGNATURE)
    assert not public.verifies(bytes(signature), b"other")
    signature[5] ^= 1
    assert not public.verifies(bytes(signature), bytes.fromhex(MESSAGE))
    assert not public.verifies(b"", bytes.fromhex(MESSAGE))


def test_the_id_is_the_sha256_of_the_public_key():
    assert PublicKey(bytes.fromhex(PUBLIC)).id == hashlib.sha256(bytes.fromhex(PUBLIC)).hexdigest()


def test_a_public_key_survives_its_line_of_text():
    key = PrivateKey.generate().public
    assert PublicKey.parse(f"{key.line('me')}\n") == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "qzoo-ed25519",
        "ssh-ed25519 AAAA me",
        "qzoo-ed25519 AAAA me",
        "qzoo-ed25519 ### me",
        f"qzoo-ed25519 {'A' * 43} me",
    ],
)
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(UsageError, match="public key"):
        PublicKey.parse(text)


def test_a_new_key_is_a_file_that_only_its_owner_reads_and_that_openssl_knows(tmp_path):
    ring = KeyRing(tmp_path)
    key = ring.new("mine")
    path = ring.path("mine")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    loaded = load_pem_private_key(path.read_bytes(), None)
    assert loaded.public_key().public_bytes_raw() == key.public.raw
    assert ring.get("mine").public == key.public


def test_nothing_replaces_a_key(tmp_path):
    ring = KeyRing(tmp_path)
    before = ring.new("mine").public
    with pytest.raises(UsageError, match="there is a key mine already"):
        ring.new("mine")
    assert ring.get("mine").public == before


def test_a_key_that_others_can_read_is_refused(tmp_path):
    ring = KeyRing(tmp_path)
    ring.new("mine")
    ring.path("mine").chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        ring.get("mine")


def test_without_a_name_the_default_or_only_key_is_meant(tmp_path):
    ring = KeyRing(tmp_path)
    with pytest.raises(UsageError, match="make one: qzoo key new"):
        ring.get()
    first = ring.new("first").public
    assert ring.get().public == first
    ring.new("second")
    with pytest.raises(UsageError, match="several keys"):
        ring.get()
    default = ring.new("default").public
    assert ring.get().public == default


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".pem", "Ärger", "x" * 65])
def test_a_key_name_stays_in_its_folder(tmp_path, name):
    with pytest.raises(UsageError, match="is no name for a key"):
        KeyRing(tmp_path).path(name)


def test_a_missing_key_is_named_with_those_that_are_there(tmp_path):
    ring = KeyRing(tmp_path)
    ring.new("mine")
    with pytest.raises(UsageError, match=r"there is no key yours.*keys here: mine"):
        ring.get("yours")


@pytest.mark.parametrize("kind", ["text", "rsa", "encrypted", "openssh"])
def test_a_private_key_of_another_kind_is_refused_and_not_shown(tmp_path, kind):
    ring = KeyRing(tmp_path)
    ring.new("mine")
    path = ring.path("mine")
    ed25519 = Ed25519PrivateKey.generate()
    if kind == "text":
        data = b"hunter2"
    elif kind == "rsa":
        data = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    elif kind == "encrypted":
        data = ed25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    else:
        data = ed25519.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is no Ed25519 private key") as caught:
        ring.get("mine")
    assert data.decode().splitlines()[-1] not in str(caught.value)


def test_openssl_verifies_what_a_key_signed(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    ring = KeyRing(tmp_path)
    key = ring.new("mine")
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_bytes(b"an engine")
    signature.write_bytes(key.sign(b"an engine"))
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-inkey", ring.path("mine"), "-rawin", "-in", message, "-sigfile", signature],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
