"""Records -> text for people, and objects for `--json`."""

from __future__ import annotations

from qzoo.report.objects import build_object, engine_object, stored_object
from qzoo.report.text import aligned, build_summary, bundle_lines, comparison, engine_lines, layer_lines

__all__ = [
    "aligned",
    "build_object",
    "build_summary",
    "bundle_lines",
    "comparison",
    "engine_lines",
    "engine_object",
    "layer_lines",
    "stored_object",
]
