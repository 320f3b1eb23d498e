"""The JSON files that trtexec writes, in its shapes (NVIDIA/TensorRT, samples/common/sampleReporting.cpp)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from qzoo.backends.trt.run import Trace
from qzoo.records import Layer, LayerTable, LayerTensor, LayerTime


def layer_info(table: LayerTable) -> bytes:
    """--exportLayerInfo, from what the builder planned: the inspector's {"Layers": [...], "Bindings": [...]}.

    Tensors have "Datatype" and "Format", as TensorRT 11 and TensorRT-RTX write them.
    """
    made = {tensor.name for layer in table.layers for tensor in layer.outputs}
    read = {tensor.name for layer in table.layers for tensor in layer.inputs}
    bindings = [
        name
        for layer in table.layers
        for tensors, other in ((layer.inputs, made), (layer.outputs, read))
        for name in (tensor.name for tensor in tensors if tensor.name not in other)
    ]
    return _text({"Layers": [_layer(layer) for layer in table.layers], "Bindings": list(dict.fromkeys(bindings))})


def _layer(layer: Layer) -> dict[str, object]:
    return {
        "Name": layer.name,
        "LayerType": layer.kind,
        "Inputs": [_tensor(tensor) for tensor in layer.inputs],
        "Constants": [_tensor(tensor) for tensor in layer.constants],
        "Outputs": [_tensor(tensor) for tensor in layer.outputs],
        "Metadata": "".join(f"[ONNX Layer: {node}]" for node in layer.nodes),
    }


def _tensor(tensor: LayerTensor) -> dict[str, object]:
    return {
        "Name": tensor.name,
        "Dimensions": list(tensor.shape),
        "Datatype": tensor.dtype,
        "Format": tensor.format,
    }


def profile(layers: Sequence[LayerTime], count: int) -> bytes:
    """--exportProfile: [{"count": N}, {"name", "timeMs", "averageMs", "medianMs", "percentage"}, ...]."""
    rows: list[dict[str, object]] = [{"count": count}]
    rows += [
        {
            "name": layer.name,
            "timeMs": layer.total_ms,
            "averageMs": layer.total_ms / layer.calls,
            "medianMs": layer.median_ms,
            "percentage": layer.percentage,
        }
        for layer in layers
    ]
    return _text(rows)


def times(traces: Sequence[Trace]) -> bytes:
    """--exportTimes: for each call when its parts began and ended, in milliseconds, and how long they took."""
    return _text([_times(trace) for trace in traces])


def _times(trace: Trace) -> dict[str, float]:
    parts = {"Enq": trace.enqueue, "H2d": trace.to_device, "Compute": trace.compute, "D2h": trace.to_host}
    moments = {
        f"{which}{part}Ms": at for part, both in parts.items() for which, at in zip(("start", "end"), both, strict=True)
    }
    lasted = {
        "h2dMs": _length(trace.to_device),
        "computeMs": _length(trace.compute),
        "d2hMs": _length(trace.to_host),
    }
    return {**moments, **lasted, "latencyMs": sum(lasted.values())}


def median_latency(traces: Sequence[Trace]) -> float:
    """The median over calls of transfers and computation, in milliseconds."""
    return float(np.median([_times(trace)["latencyMs"] for trace in traces]))


def _length(span: tuple[float, float]) -> float:
    return span[1] - span[0]


def _text(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
