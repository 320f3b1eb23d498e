"""What --autotune measured, in a file: the same decisions again, and no candidate timed twice.

{"schema": 1, "median_ms": {"<digest of target, CPU, threads, batch and lowered graph>": milliseconds, ...}}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qzoo.errors import IntegrityError, UsageError
from qzoo.records import decode, encode
from qzoo.writing import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCache:
    """Median latencies in milliseconds, by candidate."""

    median_ms: dict[str, float] = field(default_factory=dict)
    schema: Literal[1] = 1

    @classmethod
    def read(cls, path: Path | None) -> TimingCache:
        """The file's; an empty one where there is no file yet. Raises UsageError where it holds something else."""
        if path is None or not path.exists():
            return cls()
        try:
            return decode(path.read_bytes(), cls, path)
        except IntegrityError as error:
            raise UsageError(f"--timing-cache {path} is no timing cache of --autotune; name another file") from error

    def with_medians(self, measured: dict[str, float]) -> TimingCache:
        """These, and what was measured now."""
        return TimingCache(median_ms=dict(sorted({**self.median_ms, **measured}.items())))

    def write(self, path: Path | None) -> None:
        """Replace the file, or leave it as it was. Raises StoreError."""
        if path is not None:
            write_file(path, encode(self))
