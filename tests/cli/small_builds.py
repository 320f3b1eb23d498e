"""Whole builds, but of a network that takes a second or two."""

from __future__ import annotations

from pathlib import Path

PLUGINS = Path(__file__).parent / "plugins"
SMALL = (
    "build",
    "small",
    "--plugin-dir",
    PLUGINS,
    "--weights",
    "random",
    "--target",
    "onnxruntime",
    "--calib-samples",
    "8",
)
"""The words that build `small` of plugins/small_net.py."""
