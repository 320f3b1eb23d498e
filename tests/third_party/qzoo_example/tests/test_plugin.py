"""Every check of `qzoo plugin check`, each a test, of the plugin as it is installed."""

from __future__ import annotations

from qzoo.testing.pytest import PluginContract


class TestExample(PluginContract):
    """The installed plugin."""

    plugin = "example"
