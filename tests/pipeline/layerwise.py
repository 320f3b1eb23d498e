"""The layers of a portable graph, each run by itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper

INPUT = "qzoo.input."


def layers(model: onnx.ModelProto) -> dict[str, tuple[onnx.NodeProto, dict[int, str]]]:
    """Each consumer of quantized tensors by its module path, and the quantizer of each of its inputs."""
    found = {}
    for node in model.graph.node:
        sources = {
            int(entry.key.removeprefix(INPUT)): entry.value.partition(":")[2]
            for entry in node.metadata_props
            if entry.key.startswith(INPUT)
        }
        if sources:
            found[next(iter(sources.values())).rpartition(".")[0]] = (node, sources)
    return found


def alone(model: onnx.ModelProto, node: onnx.NodeProto, weights: set[int]) -> onnxruntime.InferenceSession:
    """A graph of one layer, its stored weight with it; its quantized activations are inputs."""
    makers = {output: maker for maker in model.graph.node for output in maker.output}
    inner = [makers[node.input[index]] for index in sorted(weights)]
    fed = [name for index, name in enumerate(node.input) if name in makers and index not in weights]
    needed = {name for one in (*inner, node) for name in one.input}
    graph = helper.make_graph(
        [*inner, node],
        "layer",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in dict.fromkeys(fed)],
        [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return onnxruntime.InferenceSession(made.SerializeToString(), options)


def relative_errors(
    model: onnx.ModelProto, quantized: dict[str, np.ndarray], outputs: dict[str, np.ndarray]
) -> dict[str, float]:
    """Each layer's largest difference from `outputs`, in parts of its range, given the quantized input it had there."""
    errors = {}
    for path, (node, sources) in layers(model).items():
        weights = {index for index, source in sources.items() if source.endswith("weight_quantizer")}
        session = alone(model, node, weights)
        feed = {node.input[index]: quantized[source] for index, source in sources.items() if index not in weights}
        (got,) = session.run(None, feed)
        want = outputs[path]
        errors[path] = float(np.abs(got.reshape(want.shape) - want).max() / (want.max() - want.min()))
    return errors
