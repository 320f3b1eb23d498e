"""Which layers of an engine take the time: each layer's least time over CALLS calls, as its runtime tells it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from loading import THREADS, Array

CALLS = 30
SHOWN = 12


def slowest(lowered: Path, runtime: str, config: dict[str, str], batch: Array) -> list[dict[str, str | float]]:
    """The SHOWN slowest layers of a lowered graph on a runtime, and their share of all layers' time."""
    profile = {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime]
    best: dict[str, tuple[str, float]] = {}
    for name, kind, microseconds in profile(lowered, config, batch):
        best[name] = (kind, min(microseconds, best.get(name, (kind, microseconds))[1]))
    total = sum(time for _, time in best.values())
    ordered = sorted(best.items(), key=lambda entry: -entry[1][1])[:SHOWN]
    return [
        {"layer": name, "kind": kind, "us": round(time, 1), "share": round(time / total, 3)}
        for name, (kind, time) in ordered
    ]


def _onnxruntime(lowered: Path, _: dict[str, str], batch: Array) -> Iterable[tuple[str, str, float]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling, options.log_severity_level = THREADS, True, 3
    with TemporaryDirectory(prefix="qzoo-bench-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(lowered), options, providers=["CPUExecutionProvider"])
        for _call in range(CALLS):
            session.run(None, {session.get_inputs()[0].name: batch})
        events = json.loads(Path(session.end_profiling()).read_text())
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            yield event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], float(event["dur"])


def _openvino(lowered: Path, config: dict[str, str], batch: Array) -> Iterable[tuple[str, str, float]]:
    import openvino

    asked = {**config, "INFERENCE_NUM_THREADS": str(THREADS), "PERF_COUNT": "YES"}
    request = openvino.Core().compile_model(lowered, "CPU", asked).create_infer_request()
    for _ in range(CALLS):
        request.infer({0: batch})
        for layer in request.profiling_info:
            yield layer.node_name, f"{layer.node_type} {layer.exec_type}", layer.real_time.total_seconds() * 1e6
