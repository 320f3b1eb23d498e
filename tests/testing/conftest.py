from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def path_as_it_was(monkeypatch):
    """Whatever plugins do to sys.path ends with the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Decoded images and sample lists, once for all plugins."""
    return tmp_path_factory.mktemp("kit-cache")
