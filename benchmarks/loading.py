"""How an engine that peers.py compares is called: a function of one batch (N, C, H, W) that gives its outputs in order.

All with the same number of threads. The kinds: "ort" and "ov" (a graph, with a precision hint), "torch" (an exported
program, compiled by TorchInductor), "qzoo" (an engine with its sidecar), "peak" (`peak.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

THREADS = os.cpu_count() or 1
Array = NDArray[np.float32]
Call = Callable[[Array], list[Array]]


@dataclass(frozen=True)
class Candidate:
    """An engine to time. Of `total` held-out images it decides `correct` rightly; None where weights are random."""

    name: str
    kind: str
    path: str
    runtime: str
    ours: bool
    hint: str = ""
    int8: bool = False
    sqnr_db: float = 0.0
    correct: int | None = None
    total: int | None = None


def load(candidate: Candidate) -> Call:
    """The engine, ready to be called."""
    return _LOADERS[candidate.kind](candidate)


def _load_ort(candidate: Candidate) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = THREADS, 1, 3
    session = onnxruntime.InferenceSession(candidate.path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})


def _load_openvino(candidate: Candidate) -> Call:
    import openvino

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(THREADS)}
    if candidate.hint:
        config["INFERENCE_PRECISION_HINT"] = candidate.hint
    request = openvino.Core().compile_model(candidate.path, "CPU", config).create_infer_request()
    return lambda batch: list(request.infer({0: batch}, share_inputs=True).values())


def _load_torch(candidate: Candidate) -> Call:
    import torch

    torch.set_num_threads(THREADS)
    compiled: Any = torch.compile(torch.export.load(candidate.path).module())

    def call(batch: Array) -> list[Array]:
        with torch.inference_mode():
            found = compiled(torch.from_numpy(batch))
        return [output.numpy() for output in (found if isinstance(found, tuple) else (found,))]

    return call


def _load_qzoo(candidate: Candidate) -> Call:
    from qzoo.engine import load as load_engine

    engine = load_engine(candidate.path, threads=THREADS, allow_untrusted=True)  # built here, in a store of its own
    name = engine.record.inputs[0].name
    return lambda batch: list(engine.run({name: batch}).values())


def _load_peak(candidate: Candidate) -> Call:
    from peak import int8_product

    product = int8_product(candidate.runtime, THREADS)
    return lambda _batch: product()


_LOADERS: dict[str, Callable[[Candidate], Call]] = {
    "ort": _load_ort,
    "ov": _load_openvino,
    "torch": _load_torch,
    "qzoo": _load_qzoo,
    "peak": _load_peak,
}
