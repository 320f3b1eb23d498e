"""The lowering that only TensorRT needs."""

from __future__ import annotations

import logging

import onnx_ir as ir

from qzoo.graph.edit import DEQUANTIZE, data_input, store_float
from qzoo.graph.grids import pair_of

LOGGER = logging.getLogger(__name__)


def float_transposed_convolutions(model: ir.Model) -> ir.Model:
    """Transposed convolutions compute in float: their weights are stored so, their inputs are not quantized for them.

    TensorRT-RTX 1.7 plans them in float whatever the axis of the weight's scale. Changes values: the input isn't
    rounded any more; the weights are the quantized ones.
    """
    for node in list(model.graph):
        if node.op_type != "ConvTranspose":
            continue
        pair, dequantize = pair_of(data_input(node)), data_input(node, 1).producer()
        if pair is not None:
            node.replace_input_with(0, pair.tensor)
        if dequantize is not None and dequantize.op_type == DEQUANTIZE:
            LOGGER.warning("%s stays in float: TensorRT has no INT8 kernel for transposed convolutions", node.name)
            store_float(model.graph, node, 1)
    return model
