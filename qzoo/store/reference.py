"""References: name[:tag][@sha256:...]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qzoo.errors import UsageError
from qzoo.spec import Precision

_NAME = r"[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*"
_TAG = r"[a-z0-9_][a-z0-9._-]{0,127}"
_REFERENCE = re.compile(rf"(?P<name>{_NAME})(?::(?P<tag>{_TAG}))?(?:@sha256:(?P<digest>[0-9a-f]{{64}}))?")


@dataclass(frozen=True, slots=True)
class Reference:
    """What names a bundle, or several for different targets. Where a digest is given, it decides."""

    name: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `name[:tag][@sha256:...]`, all lowercase (OCI distribution-spec 1.1, "Pulling manifests")."""
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise UsageError(f"{text!r} is no reference; write name[:tag][@sha256:...] in lowercase, as resnet20:int8")
        return cls(match["name"], match["tag"], match["digest"])

    @property
    def tagged(self) -> str:
        """`name:tag`, as the store lists it; the default tag is int8."""
        return f"{self.name}:{self.tag or 'int8'}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@sha256:{self.digest}" if self.digest else "")


def tag_for(precision: Precision) -> str:
    """The tag of a precision: `+` can't stand in one."""
    return precision.replace("+", "-")
