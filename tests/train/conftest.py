"""A network small enough to train in a second, as a plugin; and a run of it that others compare with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qzoo.pipeline.progress import Silent
from qzoo.pipeline.training import TrainOptions, train
from qzoo.registry import Registry
from qzoo.store import Store

TINY = """
import qzoo


@qzoo.hookimpl
def qzoo_models():
    for name in ("tiny", "twin"):
        yield qzoo.ModelSpec(
            name=name,
            summary="one residual block",
            builder="tiny_plugin.model:Tiny",
            version="1.0.0",
            input=qzoo.InputSpec(
                shape=(3, 16, 16),
                preprocess=qzoo.Preprocess(resize=16, crop=16, mean=(0.3, 0.3, 0.3), std=(0.35, 0.35, 0.35)),
            ),
            num_classes=10,
            head="head",
            fusions=(qzoo.Fusion("stem", "stem_bn", "relu1"), qzoo.Fusion("conv", "bn")),
            swaps=(
                qzoo.QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
                qzoo.QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
                qzoo.QuantSwap("qzoo.quant.modules:QuantAdd", path="add"),
            ),
            training=qzoo.Training(lr=0.01, batch_size=64, epochs=3, shift=0.06),
            data="digits",
        )
"""
MODEL = """
from torch import nn

from qzoo.quant.modules import Add


class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.add = Add()
        self.relu2 = nn.ReLU()
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16 * 16, num_classes)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.relu1(self.stem_bn(self.stem(x)))
        x = self.relu2(self.add(x, self.bn(self.conv(x))))
        return self.head(self.drop(self.pool(x).flatten(1)))
"""


@pytest.fixture(scope="session")
def plugin_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "tiny_plugin").mkdir()
    (folder / "tiny_plugin" / "__init__.py").write_text(TINY)
    (folder / "tiny_plugin" / "model.py").write_text(MODEL)
    return folder


@pytest.fixture(scope="session")
def tiny(plugin_dir) -> Registry:
    before = [*sys.path]
    registry = Registry.load((plugin_dir,), env={})
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
