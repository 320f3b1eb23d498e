"""What the tests of TensorRT share. They build real engines with TensorRT-RTX, which needs no GPU to do so."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from qzoo.backends.trt.backend import TensorRTRTX
from qzoo.pipeline.assemble import Built, Facts, build_engine
from qzoo.spec import BatchProfile, Recipe

GPUS = "sm86+sm89+sm120"
RANGE = BatchProfile(min=1, opt=8, max=32)


@pytest.fixture(scope="session")
def rtx() -> TensorRTRTX:
    backend = TensorRTRTX()
    if not backend.probe().builds:
        pytest.skip(f"tensorrt-rtx: {backend.probe().reason}")
    return backend


@pytest.fixture(scope="session")
def portable(bundles) -> ir.Model:
    """resnet20's portable graph; the same whatever the target."""
    return ir.load(bundles["onnxruntime"].path / "portable.onnx")


@pytest.fixture(scope="session")
def facts(bundles) -> Facts:
    record = bundles["onnxruntime"].record
    return Facts(model="resnet20", preprocess=record.preprocess, decision="argmax", labels=record.labels)


@pytest.fixture(scope="session")
def build(rtx, portable, facts, tmp_path_factory):
    """`build(roles=..., batch=...)`: a real engine of resnet20, in a folder of its own."""

    def run(batch: BatchProfile = RANGE, roles=rtx.roles, precision="int8", **more: object) -> Built:
        target = rtx.target_for(GPUS)
        recipe = Recipe(target=rtx.name, precision=precision, roles=roles, batch=batch, **more)
        lowered = rtx.lower(portable, recipe, target)
        folder: Path = tmp_path_factory.mktemp("engine")
        return build_engine(lowered, recipe, rtx, target, facts, folder)

    return run


@pytest.fixture(scope="session")
def built(build) -> Built:
    """resnet20 in INT8 with every role that pays off."""
    return build()
