"""The graph of a network trained with fake quantization, its BatchNorms live until then, against that network."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import onnx
import pytest
import torch
from layerwise import relative_errors
from torch.nn import functional as F

from qzoo.backends.ort import reference
from qzoo.export import export
from qzoo.measure import sqnr_db, top1_agreement
from qzoo.pipeline import Options, make_plan
from qzoo.pipeline.assemble import serialize
from qzoo.pipeline.forward import batches_of, few
from qzoo.pipeline.images import read_calibration, read_held_out
from qzoo.pipeline.network import load_network
from qzoo.pipeline.progress import Silent
from qzoo.quant.calibrate import calibrate
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import quantizers

GAMMA = {0: 0.0, 1: 1e-12, 2: -1e-12}
"""What a few channels get, in one BatchNorm of each stage; channel 3's gamma is negated."""
BROKEN = ("layer1.0.bn1", "layer2.1.bn2", "layer3.2.bn1")


@pytest.fixture(scope="module")
def images(registry, tmp_path_factory):
    plan = make_plan(Options(model="resnet20", target="onnxruntime"), registry, tmp_path_factory.mktemp("cache"))
    return plan, read_calibration(plan, Silent()), read_held_out(plan, Silent())


@pytest.fixture(scope="module")
def trained(images):
    """resnet20 after a few steps with fake quantization, some gammas zero, tiny or negative; in eval mode."""
    plan, calibration, _ = images
    torch.manual_seed(0)
    network = load_network(plan.spec, plan.weights, few(calibration)).network
    with torch.no_grad():
        for path in BROKEN:
            network.get_submodule(path).weight[3].neg_()
    quantized = insert_quantizers(network, plan.spec, plan.recipe, trainable=True)
    calibrate(quantized, batches_of(calibration.images), plan.recipe.calibrator, "")
    optimizer = torch.optim.SGD(quantized.parameters(), lr=0.01, momentum=0.9)
    batches = torch.from_numpy(calibration.images).split(16)
    labels = torch.from_numpy(calibration.labels).split(16)
    quantized.train()
    for _ in range(5):
        for batch, truth in zip(batches, labels, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(quantized(batch), truth).backward()
            optimizer.step()
    with torch.no_grad():
        for path in BROKEN:
            weight = quantized.get_submodule(path).weight
            for channel, gamma in GAMMA.items():
                weight[channel] = gamma
            assert weight[3] < 0
    return quantized.eval()


@pytest.fixture(scope="module")
def portable(trained, images) -> onnx.ModelProto:
    spec = images[0].spec
    return onnx.load_from_string(serialize(export(trained, spec.input.name, spec.input.shape, spec.outputs)))


def test_no_batchnorm_is_left_and_every_weight_is_stored_in_8_bits(portable):
    assert not {node.op_type for node in portable.graph.node} & {"BatchNormalization", "Mul", "Sub", "Div"}
    initializers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in portable.graph.initializer}
    makers = {output: node for node in portable.graph.node for output in node.output}
    for node in portable.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            dequantize = makers[node.input[1]]
            assert initializers[dequantize.input[0]].dtype == np.int8
            assert (initializers[dequantize.input[1]] > 0).all()


def test_each_layer_with_its_batchnorm_agrees_to_1e5_of_its_range(trained, portable, images):
    plan, _, held_out = images
    quantized, outputs = {}, {}

    def keep(into, path):
        return lambda _module, _inputs, output: into.__setitem__(path, output.numpy().copy())  # a ReLU works in place

    norm_of = {
        conv: norm for fusion in plan.spec.fusions for conv, norm, _ in fusion.bind(dict(trained.named_modules()))
    }
    found = quantizers(trained)
    hooks = [module.register_forward_hook(keep(quantized, path)) for path, module in found.items()]
    for owner in {path.rpartition(".")[0] for path in found}:
        module = trained.get_submodule(norm_of.get(owner, owner))
        hooks.append(module.register_forward_hook(keep(outputs, owner)))
    with torch.inference_mode():
        trained(torch.from_numpy(held_out.images[:16]))
    for hook in hooks:
        hook.remove()
    errors = relative_errors(portable, quantized, outputs)
    assert len(errors) == 19 + 2 + 1 + 9 + 1  # convolutions, projections, head, adds, pooling
    assert max(errors.values()) <= 1e-5, max(errors, key=errors.__getitem__)


def test_end_to_end_it_is_45_db_from_the_network_or_as_far_as_that_from_itself_and_decides_alike(
    trained, portable, images
):
    # a value on a rounding step flips with the last bit of a sum, and propagates; in double precision others flip
    held_out = images[2].images
    with torch.inference_mode():
        want = torch.cat([trained(batch) for batch in torch.from_numpy(held_out).split(64)]).numpy()
        double = deepcopy(trained).double()
        itself = torch.cat([double(batch.double()) for batch in torch.from_numpy(held_out).split(64)]).numpy()
    (got,) = reference(portable.SerializeToString()).run(None, {"input": held_out})
    assert sqnr_db(want, got) >= min(45, sqnr_db(want, itself) - 1)
    assert top1_agreement(want, got) == 1.0


def test_the_engines_of_both_runtimes_are_right_too(trained, portable, images, registry, tmp_path):
    import onnx_ir as ir

    from qzoo.pipeline.assemble import Facts, assemble

    plan, _, held_out = images
    for name in ("onnxruntime", "openvino"):
        backend = registry.backend(name)
        facts = Facts(
            model="resnet20", preprocess=plan.spec.input.preprocess, decision="argmax", labels=plan.inputs.labels
        )
        engine = assemble(
            ir.from_proto(portable),
            plan.recipe,
            backend,
            backend.target(),
            facts,
            held_out.images,
            trained=True,
            progress=Silent(),
        )
        assert engine.engine_fidelity.sqnr_db >= 35
        assert engine.engine_fidelity.top1_agreement >= 0.995
