"""Training runs of a tiny network that several tests look at."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from qzoo.pipeline.progress import Silent
from qzoo.pipeline.training import TrainOptions, train
from qzoo.registry import Registry
from qzoo.store import Store


@pytest.fixture(scope="session")
def tiny(tiny_dir) -> Iterator[Registry]:
    before = [*sys.path]
    registry = Registry.load((tiny_dir,), env={})
    assert not registry.problems
    yield registry
    sys.path[:] = before


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("home"))


@pytest.fixture
def trained(tiny, home, tmp_path):
    """`trained(qat=True)` trains in a directory of its own (or `out`), and gives what it found."""
    count = iter(range(99))

    def run(model="tiny", progress=None, **options):
        options.setdefault("out", None if "resume" in options else tmp_path / f"run{next(count)}")
        return train(TrainOptions(model=model, **options), tiny, home, progress or Silent())

    return run


@pytest.fixture(scope="session")
def float_run(tiny, home, tmp_path_factory):
    """Three epochs of float training."""
    return train(TrainOptions(model="tiny", out=tmp_path_factory.mktemp("float") / "run"), tiny, home, Silent())


@pytest.fixture(scope="session")
def qat_run(tiny, home, float_run, tmp_path_factory):
    """Two epochs with fake quantization on top, of 4-bit weights."""
    options = TrainOptions(
        model="tiny",
        qat=True,
        weights=float_run.weights,
        epochs=2,
        weight_bits=4,
        out=tmp_path_factory.mktemp("qat") / "run",
    )
    return train(options, tiny, home, Silent())
