"""Where a plugin came from. A module of its own, so that listing models loads no other record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a plugin came from: its name, its distribution and version (None: not installed), its file."""

    plugin: str
    module: str
    origin: str
    distribution: str | None = None
    version: str | None = None
