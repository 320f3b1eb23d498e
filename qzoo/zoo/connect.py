"""From what the user writes after --registry to a remote."""

from __future__ import annotations

from qzoo.zoo.folder import SCHEME, Folder
from qzoo.zoo.http import Logins
from qzoo.zoo.registry import Registry
from qzoo.zoo.remote import Remote
from qzoo.zoo.static import StaticTree


def connect(location: str, logins: Logins | None = None, *, insecure: bool = False) -> Remote:
    """What `oci-layout:DIR`, `https://host/path` (a layout behind a server of files) or `host[:port][/prefix]` mean.

    Nothing is asked of it yet. Raises UsageError for none of these, or for plain HTTP to another machine unless
    `insecure`.
    """
    if location.startswith(SCHEME):
        return Folder(location)
    if location.startswith(("http://", "https://")):
        return StaticTree(location, logins, insecure=insecure)
    return Registry(location, logins, insecure=insecure)
