"""Which engines were built here: a small file each, in a directory that nothing from elsewhere is written to.

A file's name is the SHA-256 of the engine's record (<engine>.json), which names the engine's own digest: so copies of a
bundle on this machine count as built here too, and nothing else can be made to.
"""

from __future__ import annotations

from pathlib import Path

from qzoo.store.files import is_sha256
from qzoo.writing import write_file

_FROM_WEIGHTS = "built"


class Origins:
    """The engines that were built here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, record_sha256: str, what: str, *, from_weights: bool) -> None:
        """Remember that an engine was built here, from its weights or else from a bundle's portable graph.

        `what` is for people who read the file. Raises StoreError.
        """
        if from_weights or record_sha256 not in self:
            write_file(self.folder / record_sha256, f"{_FROM_WEIGHTS if from_weights else 'rebuilt'} {what}\n".encode())

    def from_weights(self, record_sha256: str) -> bool:
        """Whether an engine was built here from its weights."""
        if record_sha256 not in self:
            return False
        return (self.folder / record_sha256).read_text(encoding="utf-8").split(" ")[0] == _FROM_WEIGHTS

    def __contains__(self, record_sha256: str) -> bool:
        return is_sha256(record_sha256) and (self.folder / record_sha256).is_file()
