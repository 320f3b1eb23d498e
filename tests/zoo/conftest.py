"""A registry for the session, stores with something to publish, and keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker_registry import RunningRegistry, docker_registry, with_password
from small_bundles import make_bundle

from qzoo.store import Store
from qzoo.zoo.keys import KeyRing
from qzoo.zoo.trust import TrustStore


@pytest.fixture(scope="session")
def open_registry(tmp_path_factory) -> Iterator[RunningRegistry]:
    """docker-registry without a password. Its names are shared: each test takes one of its own (`prefix`)."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory) -> Iterator[RunningRegistry]:
    """docker-registry that wants a password."""
    folder = tmp_path_factory.mktemp("closed-registry")
    with docker_registry(folder, with_password(folder)) as running:
        yield running


@pytest.fixture
def prefix(request, open_registry) -> str:
    """A place in the open registry that is this test's own, as --registry takes it."""
    return f"{open_registry.location}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"


@pytest.fixture
def publisher(tmp_path) -> Store:
    """A store whose engines were built here, with a key."""
    store = Store(tmp_path / "publisher")
    KeyRing(store.home).new("default")
    return store


@pytest.fixture
def put(publisher) -> Callable[..., None]:
    """`put(model="net", runtime="openvino", seed=0)` stores a trained bundle as `<model>:int8` with the publisher."""

    def do(model: str = "net", runtime: str = "openvino", **how: object) -> None:
        manifest, made = make_bundle(model, runtime, **{"weights": "file", **how})
        publisher.put(model, "int8", manifest, made)

    return do


@pytest.fixture
def reader(tmp_path, publisher) -> Store:
    """An empty store of somebody who trusts the publisher."""
    store = Store(tmp_path / "reader")
    TrustStore(store.home).trust(KeyRing(publisher.home).get("default").public, "publisher")
    return store


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where a zoo without a server may be."""
    return tmp_path / "zoo"
