"""Graphs written as text, and their values by onnx's own slow evaluator."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

HEADER = '<ir_version: 10, opset_import: ["" : 18, "qzoo" : 1]>'


class FakeQuantize(OpRun):
    """clamp(round_half_even(x / s), low, high) * s, along an axis or per tensor."""

    op_domain = "qzoo"

    def _run(self, x, scale, axis=-1, low=-128, high=127, role="", path=""):
        if axis >= 0:
            scale = scale.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        return ((np.clip(np.rint(x / scale), low, high) * scale).astype(np.float32),)


@pytest.fixture(scope="session")
def parse():
    """A graph in ONNX's text syntax, with its initializers -> an onnx_ir model."""

    def build(text: str, **arrays: np.ndarray) -> ir.Model:
        proto = onnx.parser.parse_model(HEADER + text)
        for name, array in arrays.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return ir.from_proto(proto)

    return build


@pytest.fixture(scope="session")
def evaluate():
    """A graph and its inputs -> its outputs, one operator after the other, in numpy."""

    def run(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
        proto = ir.to_proto(model)
        for opset in proto.opset_import:
            if not opset.domain:
                opset.version = 19  # the evaluator has Q/DQ from here on; those of int8 and uint8 are unchanged
        return ReferenceEvaluator(proto, new_ops=[FakeQuantize]).run(None, feeds)

    return run


@pytest.fixture(scope="session")
def node():
    """The one node of an operator, or of a name."""

    def find(model: ir.Model, name: str) -> ir.Node:
        (found,) = [node for node in model.graph if name in (node.name, node.op_type)]
        return found

    return find
