"""What tests of several folders share: a store with resnet20 built for both CPU runtimes, once per session."""

from __future__ import annotations

from pathlib import Path

import pytest

from qzoo.pipeline import Options, build_all, make_plan
from qzoo.registry import Registry
from qzoo.store import Bundle, Store

CPU_RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The registry with what is installed, and nothing from the environment."""
    return Registry.load(env={})


@pytest.fixture(scope="session")
def built_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A QZOO_HOME in which resnet20:int8 was built for both CPU runtimes. Not to be changed."""
    return tmp_path_factory.mktemp("built-home")


@pytest.fixture(scope="session")
def bundles(built_home: Path, registry: Registry) -> dict[str, Bundle]:
    """resnet20's INT8 bundles by runtime, in `built_home`."""
    store = Store(built_home)
    plans = [
        make_plan(Options(model="resnet20", target=target), registry, store.home / "cache") for target in CPU_RUNTIMES
    ]
    return dict(zip(CPU_RUNTIMES, build_all(plans, store), strict=True))
