"""The runtimes that qzoo brings along, registered through the same hook as anybody's."""

from __future__ import annotations

from collections.abc import Iterator

from qzoo.backends.ort import OnnxRuntime
from qzoo.backends.ov import OpenVINO
from qzoo.backends.trt.backend import TensorRT, TensorRTRTX
from qzoo.hookspecs import Backend, hookimpl


@hookimpl
def qzoo_backends() -> Iterator[Backend]:
    """OpenVINO and onnxruntime, both on the CPU; TensorRT and TensorRT-RTX, which need a GPU to run."""
    yield OpenVINO()
    yield OnnxRuntime()
    yield TensorRT()
    yield TensorRTRTX()
