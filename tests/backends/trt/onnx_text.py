"""Graphs written as text."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir


def graph(text: str, **arrays: object) -> ir.Model:
    """A graph in ONNX's text syntax with its initializers; unnamed nodes are called after what they make."""
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 18]>' + text)
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    for node in proto.graph.node:
        node.name = node.name or f"make_{node.output[0]}"
    return ir.from_proto(proto)
