"""The blob `{}`, which every manifest without content refers to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from qzoo.zoo.remote import Remote
from qzoo.zoo.signature import EMPTY, EMPTY_BLOB


def put_empty(remote: Remote, name: str) -> None:
    """Make sure that it is among the blobs of a name."""
    if remote.has(name, EMPTY):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.json"
        path.write_bytes(EMPTY_BLOB)
        remote.put_blob(name, EMPTY, path, lambda _: None)
