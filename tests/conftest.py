"""What tests of several folders share: stores with a model built for both CPU runtimes, each once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_network import write_tiny

from qzoo.pipeline import Options, build_all, make_plan
from qzoo.registry import Registry
from qzoo.spec import BatchProfile
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
    return _built("resnet20", built_home, registry)


@pytest.fixture(scope="session")
def planned_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A QZOO_HOME in which resnet20:int8 was built ahead of time for GPUs. Not to be changed."""
    return tmp_path_factory.mktemp("planned-home")


@pytest.fixture(scope="session")
def planned(planned_home: Path, registry: Registry) -> Bundle:
    """resnet20's INT8 bundle for TensorRT-RTX, in `planned_home`."""
    probe = registry.backend("tensorrt-rtx").probe()
    if not probe.builds:
        pytest.skip(f"tensorrt-rtx: {probe.reason}")
    options = Options(model="resnet20", target="tensorrt-rtx/sm86+sm89+sm120", batch=BatchProfile(min=1, opt=8, max=32))
    store = Store(planned_home)
    return build_all([make_plan(options, registry, store.home / "cache")], store)[0]


@pytest.fixture(scope="session")
def mfcnn_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A QZOO_HOME in which mfcnn:int8 was built for both CPU runtimes. Not to be changed."""
    return tmp_path_factory.mktemp("mfcnn-home")


@pytest.fixture(scope="session")
def mfcnn_bundles(mfcnn_home: Path, registry: Registry) -> dict[str, Bundle]:
    """mfcnn's INT8 bundles by runtime, in `mfcnn_home`."""
    return _built("mfcnn", mfcnn_home, registry)


def _built(model: str, home: Path, registry: Registry) -> dict[str, Bundle]:
    store = Store(home)
    plans = [make_plan(Options(model=model, target=target), registry, store.home / "cache") for target in CPU_RUNTIMES]
    return dict(zip(CPU_RUNTIMES, build_all(plans, store), strict=True))


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin whose models `tiny` and `twin` are trained in a second."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))
