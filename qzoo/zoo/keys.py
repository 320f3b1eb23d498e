"""Ed25519 keys (RFC 8032). A private one is a PKCS#8 file in PEM, a public one a line of text to hand on."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from qzoo.errors import UsageError
from qzoo.writing import new_file, writing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "qzoo-ed25519"
DEFAULT = "default"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SIZE = 32  # bytes of a public key (RFC 8032, 5.1.5)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: its 32 bytes."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read `line`'s text, whose name may be missing. Raises UsageError."""
        words = text.split()
        if len(words) not in (2, 3) or words[0] != ALGORITHM:
            raise UsageError(f"{text.strip()[:80]!r} is no public key; it reads {ALGORITHM} BASE64 NAME: qzoo key show")
        return cls.decode(words[1])

    @classmethod
    def decode(cls, text: str) -> PublicKey:
        """Read a key's base64. Raises UsageError."""
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != _SIZE or base64.b64encode(raw).decode() != text:
            raise UsageError(f"{text[:80]!r} is no Ed25519 public key: it must be {_SIZE} bytes in base64")
        return cls(raw)

    @property
    def id(self) -> str:
        """SHA-256 of the key's bytes, in hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def base64(self) -> str:
        return base64.b64encode(self.raw).decode()

    def line(self, name: str) -> str:
        """The key as a line of text, as `qzoo key show` prints it."""
        return f"{ALGORITHM} {self.base64} {name}"

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether the key's owner signed these bytes."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A private key, which signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, data: bytes, source: Path) -> PrivateKey:
        """Read what `pem` gives. Raises UsageError that names `source`, and shows nothing of its content."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise UsageError(f"{source} is no Ed25519 private key in PKCS#8 without a password; make one: qzoo key new")
        return cls(key)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key().public_bytes_raw())

    def pem(self) -> bytes:
        """PKCS#8 in PEM, not encrypted: the file's permissions protect it."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """The signature of these bytes, 64 bytes; always the same for the same bytes."""
        return self._key.sign(data)


class KeyRing:
    """One's own private keys: QZOO_HOME/keys/<name>.pem, readable by their owner only."""

    def __init__(self, home: Path) -> None:
        self.folder = home.expanduser().absolute() / "keys"

    def path(self, name: str) -> Path:
        """Where a key of that name lies. Raises UsageError for what is no name."""
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"{name!r} is no name for a key; use up to 64 of a-z, 0-9, '.', '_' and '-'")
        return self.folder / f"{name}.pem"

    def names(self) -> list[str]:
        """The names of all keys."""
        return sorted(path.stem for path in self.folder.glob("*.pem") if _NAME.fullmatch(path.stem))

    def new(self, name: str) -> PrivateKey:
        """Make and store a key. Raises UsageError where there is one of that name: nothing replaces a key."""
        path = self.path(name)
        with writing(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            if path.exists():
                raise UsageError(f"there is a key {name} already: {path}; choose another name, qzoo key new NAME")
            key = PrivateKey.generate()
            with new_file(path, mode=0o600) as temporary:
                temporary.write_bytes(key.pem())
        return key

    def get(self, name: str | None = None) -> PrivateKey:
        """The key of that name; without one that called "default", or the only one.

        Raises UsageError where there is none, or others than its owner could have read it.
        """
        path = self.path(name or self._default())
        try:
            if path.stat().st_mode & 0o077:
                raise UsageError(f"{path} can be read by others than its owner; chmod 600 it, or make a new key")
            return PrivateKey.from_pem(path.read_bytes(), path)
        except OSError as error:
            known = ", ".join(self.names()) or "none"
            raise UsageError(f"there is no key {name}: {path}: {error.strerror}; keys here: {known}") from error

    def _default(self) -> str:
        names = self.names()
        if DEFAULT in names or len(names) == 1:
            return DEFAULT if DEFAULT in names else names[0]
        if names:
            raise UsageError(
                f"there are several keys ({', '.join(names)}) and none is called default; say which: --key"
            )
        raise UsageError("there is no key to sign with; make one: qzoo key new")
