"""Multiply-accumulates of a float graph: those of its convolutions and matrix products."""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx
from onnx import shape_inference


def gmacs(path: Path, batch: int) -> float:
    """10^9 multiply-accumulates of one call on a batch. The graph's weights are initializers."""
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    graph = shape_inference.infer_shapes(model, strict_mode=False).graph
    weights = {one.name: tuple(one.dims) for one in graph.initializer}
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    total = 0
    for node in graph.node:
        if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.input[1] not in weights:
            continue
        weight, out = weights[node.input[1]], shapes[node.output[0]]
        rows = batch * prod(out[2:]) if node.op_type == "Conv" else batch * prod(out[1:-1])
        total += rows * prod(weight)
    return total / 1e9
