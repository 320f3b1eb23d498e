"""The machine's INT8 peak: each runtime's product of a u8 and an s8 matrix, so large that nothing else counts.

The faster one is the peak; which one that is depends on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIDE, NARROW = 2048, 16
GMAC = SIDE**3 / 1e9
"""Multiply-accumulates of one product, in 10^9."""
SCALE = 0.01

Product = Callable[[], list[NDArray[np.float32]]]


def int8_product(runtime: str, threads: int) -> Product:
    """One product on "onnxruntime" or "openvino", as a call; the s8 matrix is a constant, so that it is packed once."""
    generator = np.random.default_rng(0)
    left = generator.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    right = generator.integers(-127, 128, (SIDE, SIDE), dtype=np.int8)
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}[runtime](left, right, threads)


def _onnxruntime(left: NDArray[np.uint8], right: NDArray[np.int8], threads: int) -> Product:
    """MatMulInteger, of its own kernels (MLAS); 32-bit sums come out."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "peak",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [SIDE, SIDE])],
        [helper.make_tensor_value_info("c", TensorProto.INT32, [SIDE, SIDE])],
        [numpy_helper.from_array(right, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": left})


def _openvino(left: NDArray[np.uint8], right: NDArray[np.int8], threads: int) -> Product:
    """A dequantized matrix times a dequantized one, ReLU'd and quantized: one INT8 kernel of oneDNN's.

    A narrow product reads the result, as integers would otherwise be written as floats, which takes as long again; it
    is not counted.
    """
    import openvino
    from openvino import opset13 as ops

    def product(a: openvino.Node, b: openvino.Node) -> openvino.Node:
        scale = ops.constant(np.float32(SCALE))
        a, b = (ops.multiply(ops.convert(matrix, "f32"), scale) for matrix in (a, b))
        return ops.matmul(a, b, transpose_a=False, transpose_b=False)

    given = ops.parameter([SIDE, SIDE], np.uint8, name="a")
    low, high = (ops.constant(np.float32(value)) for value in (0, SCALE**2 * 127 * 255 * SIDE**0.5))
    wide = ops.fake_quantize(ops.relu(product(given, ops.constant(right))), low, high, low, high, 256)
    narrow = product(wide, ops.constant(right[:, :NARROW]))
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
    compiled = openvino.Core().compile_model(openvino.Model([narrow], [given]), "CPU", config)
    request = compiled.create_infer_request()
    return lambda: list(request.infer({0: left}, share_inputs=True).values())
