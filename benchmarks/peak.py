"""The machine's INT8 peak: onnxruntime's product of a u8 and an s8 matrix, so large that nothing else counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIDE = 1536
GMAC = SIDE**3 / 1e9
"""Multiply-accumulates of one product, in 10^9."""


def int8_product(threads: int) -> Callable[[], list[NDArray[np.float32]]]:
    """One product, as a call; the s8 matrix is a constant, so that it is packed once."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    right = numpy_helper.from_array(generator.integers(-127, 128, (SIDE, SIDE), dtype=np.int8), "b")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "peak",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [SIDE, SIDE])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [SIDE, SIDE])],
        [right],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = generator.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    return lambda: session.run(None, {"a": left})
