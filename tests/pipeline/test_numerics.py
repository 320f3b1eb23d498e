"""How exact is exact: the portable graph against the fake-quantized network, layer by layer, on resnet20 and digits."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from layerwise import layers, relative_errors

from qzoo.graph import lower
from qzoo.pipeline import Options, make_plan
from qzoo.pipeline.assemble import serialize
from qzoo.pipeline.prepare import prepare
from qzoo.pipeline.progress import Silent
from qzoo.quant.modules import quantizers


@pytest.fixture(scope="module")
def prepared(registry, tmp_path_factory):
    plan = make_plan(Options(model="resnet20", target="onnxruntime"), registry, tmp_path_factory.mktemp("cache"))
    return prepare(plan, Silent())


@pytest.fixture(scope="module")
def portable(prepared) -> onnx.ModelProto:
    return onnx.load_from_string(serialize(prepared.portable))


@pytest.fixture(scope="module")
def seen(prepared) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the network computes on sixteen images: each quantizer's output, and each quantized module's."""
    network, quantized, outputs = prepared.quantized, {}, {}

    def keep(into, path):
        return lambda _module, _inputs, output: into.__setitem__(path, output.numpy().copy())  # a ReLU works in place

    found = quantizers(network)
    hooks = [module.register_forward_hook(keep(quantized, path)) for path, module in found.items()]
    owners = {path.rpartition(".")[0] for path in found}
    hooks += [network.get_submodule(path).register_forward_hook(keep(outputs, path)) for path in owners]
    with torch.inference_mode():
        network(torch.from_numpy(prepared.held_out.images[:16]))
    for hook in hooks:
        hook.remove()
    return quantized, outputs


def test_every_quantized_module_is_a_layer_of_the_graph(prepared, portable):
    assert set(layers(portable)) == {path.rpartition(".")[0] for path in quantizers(prepared.quantized)}


def test_each_layer_given_the_same_quantized_input_agrees_to_1e5_of_its_range(portable, seen):
    quantized, outputs = seen
    errors = relative_errors(portable, quantized, outputs)
    assert len(errors) == 19 + 2 + 1 + 9 + 1  # convolutions, projections, head, adds, pooling
    assert max(errors.values()) <= 1e-5, max(errors, key=errors.__getitem__)


def test_stored_weights_are_the_fake_quantized_ones_to_the_bit(portable, seen):
    quantized, _ = seen
    initializers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in portable.graph.initializer}
    makers = {output: maker for maker in portable.graph.node for output in maker.output}
    for node, sources in layers(portable).values():
        for index, source in sources.items():
            if source.endswith("weight_quantizer"):
                dequantize = makers[node.input[index]]
                stored, scale = initializers[dequantize.input[0]], initializers[dequantize.input[1]]
                assert stored.dtype == np.int8
                real = stored.astype(np.float32) * scale.reshape(-1, *[1] * (stored.ndim - 1))
                np.testing.assert_array_equal(real.reshape(quantized[source].shape), quantized[source])


def test_uint8_with_zero_point_128_changes_nothing(prepared, portable):
    offset = onnx.load_from_string(serialize(lower.run_passes(prepared.portable, [lower.offset_signed])))
    types = {tensor.data_type for tensor in offset.graph.initializer if "zero_point" in tensor.name}
    assert types == {onnx.TensorProto.UINT8}
    results = []
    for model in (portable, offset):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        results.append(session.run(None, {"input": prepared.held_out.images[:64]})[0])
    np.testing.assert_array_equal(*results)
