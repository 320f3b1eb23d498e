"""The example's own tests run where it is installed (test_installed_plugin.py), not here."""

from __future__ import annotations

collect_ignore = ["qzoo_example"]
