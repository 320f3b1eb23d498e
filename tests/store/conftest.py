"""An empty store, and a way to fill it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small_bundles import make_bundle

from qzoo.store import Bundle, Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def put(store) -> Callable[..., Bundle]:
    """`put(model="net", runtime="openvino", seed=0)` stores such a bundle as `<model>:int8`."""

    def do(model: str = "net", **how: object) -> Bundle:
        manifest, files = make_bundle(model, **how)
        return store.put(model, "int8", manifest, files)

    return do
