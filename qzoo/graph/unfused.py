"""A pass for a runtime that has an integer kernel only where a convolution's result is quantized, too: onnxruntime.

It runs DequantizeLinear -> Conv -> QuantizeLinear as one integer kernel. Where an activation that no quantizer repeats
(HardSwish, Sigmoid) or a graph output follows the convolution, it dequantizes input and weight in every run and then
convolves in float: MobileNetV3-Large took three times as long as in fp32.
"""

from __future__ import annotations

import onnx_ir as ir

from qzoo.graph.edit import QUANTIZE, store_float
from qzoo.graph.grids import pair_of

_INTEGER = {"Conv", "Add", "Mul", "Gemm", "MatMul", "Concat", "GlobalAveragePool", "AveragePool"}
"""What gives integers where its result is quantized."""


def float_unfused(model: ir.Model) -> ir.Model:
    """Store the weight of every Conv that isn't read by quantizers alone as float, and leave its input unquantized.

    Changes values: the rounding of such an input is gone, where nothing computes it in integers. The weights stay on
    the grid of their integers.
    """
    for node in list(model.graph):
        if node.op_type in {"Conv", "ConvTranspose"} and not _fuses(node, model.graph):
            store_float(model.graph, node, 1)
            source = pair_of(node.inputs[0])
            if source is not None and not _gives_integers(source.tensor):
                node.replace_input_with(0, source.tensor)
    return model


def _fuses(node: ir.Node, graph: ir.Graph) -> bool:
    users = [user.op_type for user, _ in node.outputs[0].uses()]
    return node.op_type == "Conv" and set(users) == {QUANTIZE} and node.outputs[0] not in graph.outputs


def _gives_integers(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in _INTEGER
