from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import Tensor, nn
from torch.nn import functional as F

import qzoo
from qzoo.backends.trt.backend import TensorRTRTX
from qzoo.data.digits import Digits
from qzoo.data.files import open_image
from qzoo.data.preprocess import apply
from qzoo.graph.edit import pairs
from qzoo.pipeline import rebuild
from qzoo.pipeline.assemble import serialize
from qzoo.pipeline.evaluate import Sampling, evaluate_engine
from qzoo.pipeline.progress import Silent
from qzoo.quant.fuse import fold_batchnorm
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import QuantInput, quantizers
from qzoo.spec import Recipe, match_path, matches_any
from qzoo.store import Store
from qzoo_mfcnn import qzoo_models
from qzoo_mfcnn.model import MFCNN, Tile, Untile, mfcnn
from qzoo_mfcnn.modules import QuantSigmoid

(SPEC,) = qzoo_models()
RUNTIMES = ("onnxruntime", "openvino")
OUTPUTS = ("global_logits", "patch_logits")
BRANCHES = ("global_branch", "patch_branch")
QZOO = Path(sys.executable).with_name("qzoo")
SHIPPED = Path(__file__).parents[2] / "weights"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> MFCNN:
    """In eval mode, with BatchNorm statistics like a trained one's."""
    torch.manual_seed(0)
    model = mfcnn(10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


@pytest.fixture(scope="module")
def engines(mfcnn_bundles, mfcnn_home):
    store = Store(mfcnn_home)
    return {runtime: qzoo.load(bundle.path, store=store) for runtime, bundle in mfcnn_bundles.items()}


@pytest.fixture(scope="module")
def portable(mfcnn_bundles) -> ir.Model:
    return ir.load(mfcnn_bundles["onnxruntime"].path / "portable.onnx")


def digit(count: int = 1) -> np.ndarray:
    digits = Digits()
    return np.stack([apply(SPEC.input.preprocess, digits.image(one)) for one in digits.samples("held-out")[:count]])


# --- the network


def looped(images: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """The network as its users wrote it: functions alone, and a loop over the patches."""
    whole = staged(images, state, "global_branch", 2)
    joined = torch.cat([stage(whole, state, "global_branch.stage3"), F.interpolate(whole, size=4, mode="nearest")], 1)
    results = []
    for top in range(0, 37, 12):
        for left in range(0, 37, 12):
            patch = images[:, :, top : top + 24, left : left + 24]
            results.append(attended(staged(patch, state, "patch_branch", 2), state, "patch_branch"))
    return (
        head(attended(joined, state, "global_branch"), state, "global_branch"),
        head(torch.cat(results, 1), state, "patch_branch"),
    )


def staged(x: Tensor, state: State, branch: str, count: int) -> Tensor:
    for number in range(1, count + 1):
        x = stage(x, state, f"{branch}.stage{number}")
    return x


def stage(x: Tensor, state: State, path: str) -> Tensor:
    for number in (1, 2):
        x = F.conv2d(x, state[f"{path}.conv{number}.weight"])
        mean, variance, gain, bias = (
            state[f"{path}.bn{number}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.relu(F.batch_norm(x, mean, variance, gain, bias))
    return F.max_pool2d(x, 2)


def attended(x: Tensor, state: State, branch: str) -> Tensor:
    def excited(pooled: Tensor) -> Tensor:
        hidden = F.relu(F.conv2d(pooled, state[f"{branch}.channel.conv1.weight"]))
        return F.conv2d(hidden, state[f"{branch}.channel.conv2.weight"])

    seen = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
    x = x * F.conv2d(seen, state[f"{branch}.spatial.conv.weight"], padding=3).sigmoid()
    return x * (excited(x.mean((2, 3), keepdim=True)) + excited(x.amax((2, 3), keepdim=True))).sigmoid()


def head(x: Tensor, state: State, branch: str) -> Tensor:
    return F.linear(x.mean((2, 3)), state[f"{branch}.head.fc.weight"], state[f"{branch}.head.fc.bias"])


def test_logits_are_those_of_the_loop_over_sixteen_patches(network):
    images = torch.randn(3, 1, 60, 60)
    with torch.inference_mode():
        for ours, theirs in zip(network(images), looped(images, network.state_dict()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_both_heads_see_the_image(network):
    with torch.inference_mode():
        one, other = network(torch.zeros(1, 1, 60, 60)), network(torch.ones(1, 1, 60, 60))
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(one, other, strict=True))


def test_it_has_about_1_45_million_parameters(network):
    convs = 9 * (64 + 64**2 + 64 * 128 + 128**2) * 2 + 9 * (128 * 256 + 256**2)
    norms = 2 * (64 + 64 + 128 + 128) * 2 + 2 * (256 + 256)
    attention = 2 * (2 * 7 * 7) + 2 * 384 * 24 + 2 * 128 * 8
    linear = 10 * (384 + 1) + 10 * (2048 + 1)
    assert sum(p.numel() for p in network.parameters()) == convs + norms + attention + linear == 1_449_560


def test_state_dict_keys_name_branch_stage_and_layer(network):
    stages = {"global_branch": 3, "patch_branch": 2}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {
        f"{branch}.stage{number}.{name}"
        for branch, count in stages.items()
        for number in range(1, count + 1)
        for layer in (1, 2)
        for name in (f"conv{layer}.weight", *(f"bn{layer}.{one}" for one in norm))
    }
    rest = ("spatial.conv.weight", "channel.conv1.weight", "channel.conv2.weight", "head.fc.weight", "head.fc.bias")
    assert set(network.state_dict()) == expected | {f"{branch}.{name}" for branch in stages for name in rest}


def test_tiles_are_folded_into_the_batch_image_by_image_and_row_by_row():
    x = torch.arange(2 * 3 * 12 * 12, dtype=torch.float32).reshape(2, 3, 12, 12)
    expected = [
        image[:, top : top + 3, left : left + 3] for image in x for top in range(0, 12, 3) for left in range(0, 12, 3)
    ]
    assert torch.equal(Tile()(x), torch.stack(expected))


def test_untiling_concatenates_each_images_tiles_on_channels():
    tiles = torch.randn(2 * 16, 5, 3, 3)
    assert torch.equal(Untile()(tiles), torch.cat(list(tiles.reshape(2, 16, 5, 3, 3).unbind(1)), 1))


def test_initialization_is_kaiming_normal_fan_out_and_xavier_normal():
    torch.manual_seed(0)
    for module in mfcnn(10).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        elif isinstance(module, nn.Linear):
            expected = (2 / (module.in_features + module.out_features)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert not module.bias.any()


# --- what it declares


def test_every_batchnorm_and_the_relu_after_it_belong_to_one_fusion(network):
    modules = dict(network.named_modules())
    bound = [group for fusion in SPEC.fusions for group in fusion.bind(modules)]
    assert sorted(bn for _, bn, _ in bound) == sorted(p for p, m in modules.items() if isinstance(m, nn.BatchNorm2d))
    assert {act for _, _, act in bound} == {
        path for path, module in modules.items() if isinstance(module, nn.ReLU) and ".stage" in path
    }


def test_folding_batchnorm_keeps_the_logits(network):
    torch.manual_seed(1)
    model = mfcnn(10).double().eval()
    images = torch.randn(2, 1, 60, 60, dtype=torch.double)
    with torch.inference_mode():
        expected = model(images)
        fold_batchnorm(model, SPEC.fusions)
        torch.testing.assert_close(model(images), expected)


def test_every_declared_swap_is_matched_and_what_is_kept_stays_float(network):
    quantized = insert_quantizers(network, SPEC, Recipe(target="onnxruntime/any", precision="int8"))
    named = dict(quantized.named_modules())
    classes = {path: type(module).__name__ for path, module in named.items()}
    for swap in SPEC.swaps:
        wanted = swap.to.rpartition(":")[2]
        found = {path for path, name in classes.items() if name == wanted}
        assert found, swap
        if swap.path is not None:
            assert found == {path for path in classes if match_path(swap.path, path)}
    kept = [path for path in named if matches_any(path, SPEC.keep_float)]
    assert {"global_branch.spatial.conv", "patch_branch.spatial.conv"} <= {*kept}
    assert not [path for path in quantizers(quantized) if matches_any(path.rpartition(".")[0], SPEC.keep_float)]
    floats = {path for path, module in named.items() if type(module) in (nn.Conv2d, nn.Linear, nn.MaxPool2d)}
    assert floats <= {*kept}


def test_quant_sigmoid_quantizes_what_it_reads():
    module = QuantSigmoid.from_float(nn.Sigmoid(), None)
    assert isinstance(module, QuantInput)
    module.input_quantizer.load_amax(torch.tensor(1.27))
    x = torch.linspace(-2, 2, 101)
    torch.testing.assert_close(module(x), torch.sigmoid((x / 0.01).round().clamp(-128, 127) * 0.01))


def test_there_is_an_int8_recipe_for_every_target():
    declared = {(recipe.target, recipe.precision) for recipe in SPEC.recipes}
    assert {(t, "int8") for t in ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")} <= declared


# --- its graphs


def test_the_graph_holds_one_copy_of_the_patch_branch(portable):
    owners = [node.inputs[1].name for node in portable.graph if node.op_type == "Conv" and len(node.inputs) > 1]
    patch = [name for name in owners if name.startswith("patch_branch")]
    assert len(patch) == len({*patch}) + 2 == 9  # the stages' four, one spatial; two of channels, each called twice


FLOAT_ANYWHERE = [f"{branch}.spatial.conv.weight" for branch in BRANCHES]
FIRST = [f"{branch}.stage1.conv1.weight" for branch in BRANCHES]


def float_convolutions(model: ir.Model) -> list[str]:
    """The weights of the convolutions that read floats and have float weights, by name."""
    return sorted(
        node.inputs[1].name.removesuffix(".int8.float")  # what is left of a weight that had been quantized
        for node in model.graph
        if node.op_type == "Conv"
        and not any(value.producer() and value.producer().op_type == "DequantizeLinear" for value in node.inputs[:2])
    )


def test_spatial_attention_is_float_in_the_portable_graph(portable):
    assert float_convolutions(portable) == FLOAT_ANYWHERE


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_by_the_recipes_the_convolutions_that_read_the_image_are_float_too(mfcnn_bundles, runtime):
    lowered = ir.load(mfcnn_bundles[runtime].path / "lowered.onnx")
    assert float_convolutions(lowered) == sorted([*FLOAT_ANYWHERE, *FIRST])


def test_the_portable_graph_quantizes_what_the_facts_say(portable):
    found = {name for pair in pairs(portable.graph) for name in pair.quantize.metadata_props["qzoo.module"].split(",")}
    names = ("channel.add.skip", "channel.add.branch", "channel.sigmoid.input", "channel.mul.left", "channel.mul.right")
    expected = {
        f"{branch}.{name}_quantizer" for branch in BRANCHES for name in (*names, "head.fc.input", "stage2.pool.input")
    }
    assert expected | {"global_branch.concat.input_quantizer"} <= found
    scales = [p.scale for p in pairs(portable.graph) if "concat" in p.quantize.metadata_props["qzoo.module"]]
    assert len(scales) == 2
    assert len({*scales}) == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_pool_runs_on_integers_in_the_lowered_graph(mfcnn_bundles, runtime):
    lowered = ir.load(mfcnn_bundles[runtime].path / "lowered.onnx")
    pools = [n for n in lowered.graph if n.op_type == "MaxPool" and n.attributes.get_ints("kernel_shape") == (2, 2)]
    assert len(pools) == 5
    for pool in pools:
        (reader,) = [user for user, _ in pool.outputs[0].uses()]
        assert pool.inputs[0].producer().op_type == "DequantizeLinear"
        assert reader.op_type == "QuantizeLinear"
        for index in (1, 2):
            np.testing.assert_array_equal(
                reader.inputs[index].const_value.numpy(), pool.inputs[0].producer().inputs[index].const_value.numpy()
            )


# --- its engines


def test_the_shipped_weights_are_as_good_as_said(mfcnn_bundles):
    metrics = tomllib.loads((SHIPPED / "weights.toml").read_text())["mfcnn-digits"]["metrics"]
    found = mfcnn_bundles["onnxruntime"].measurement.accuracy["float"]
    assert (found.correct, found.total) == (metrics["correct"], metrics["total"])
    assert found.correct >= 356


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_costs_at_most_two_of_360(mfcnn_bundles, runtime):
    found = mfcnn_bundles[runtime].measurement
    assert mfcnn_bundles[runtime].measurement.verified == "passed"
    assert found.accuracy["engine"].correct >= found.accuracy["float"].correct - 2
    assert found.accuracy["engine"].total == 360


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_graphs_records_and_engines_have_both_outputs(mfcnn_bundles, engines, runtime):
    bundle = mfcnn_bundles[runtime]
    for name in ("portable.onnx", "lowered.onnx"):
        assert tuple(output.name for output in onnx.load(bundle.path / name).graph.output) == OUTPUTS
    assert tuple(info.name for info in bundle.record.outputs) == OUTPUTS
    found = engines[runtime](digit(3))
    assert {name: array.shape for name, array in found.items()} == dict.fromkeys(OUTPUTS, (3, 10))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_run_sums_both_heads_softmax_of_a_grey_copy_of_the_image(engines, runtime, tmp_path):
    digits = Digits()
    path = tmp_path / "digit.png"
    digits.image(digits.samples("held-out")[5]).resize((90, 70)).convert("RGB").save(path)
    engine = engines[runtime]
    grey = np.asarray(Image.open(path).convert("L").resize((77, 60), Image.Resampling.BILINEAR), np.float32)[:, 8:68]
    pre = SPEC.input.preprocess
    array = ((grey / 255 - pre.mean[0]) / pre.std[0]).astype(np.float32)[None, None]
    np.testing.assert_allclose(apply(pre, open_image(path))[None], array, atol=1e-6)
    expected = sum(softmax(logits[0].astype(np.float64)) for logits in engine(array).values()) / 2
    for guess in engine.classify(path, top=10):
        assert guess.probability == pytest.approx(expected[guess.index], abs=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_eval_counts_by_the_sum_of_both_softmaxes(engines, mfcnn_bundles, runtime):
    digits, engine = Digits(), engines[runtime]
    samples = digits.samples("held-out")
    images = np.stack([apply(SPEC.input.preprocess, digits.image(sample)) for sample in samples])
    outputs = [engine(images[i : i + 16]) for i in range(0, len(images), 16)]
    scores = np.concatenate([sum(softmax(logits, axis=1) for logits in part.values()) for part in outputs])
    correct = int((scores.argmax(1) == [sample.label for sample in samples]).sum())
    assert evaluate_engine(engine, digits, Sampling(), Silent()).top1.correct == correct
    assert mfcnn_bundles[runtime].measurement.accuracy["engine"].correct == correct


def test_an_images_logits_do_not_depend_on_its_batch(engines):
    images = digit(4)
    for name, together in engines["onnxruntime"](images).items():
        alone = np.concatenate([engines["onnxruntime"](image[None])[name] for image in images])
        np.testing.assert_allclose(together, alone, atol=1e-4)


def test_it_rebuilds_from_its_portable_graph(mfcnn_bundles, registry, tmp_path):
    again = rebuild(mfcnn_bundles["onnxruntime"], registry, Store(tmp_path))
    assert again.measurement.verified == "passed"
    assert again.measurement.fidelity.top1_agreement >= 0.98
    assert tuple(info.name for info in again.record.outputs) == OUTPUTS


def test_the_command_builds_a_verified_bundle_and_runs_it(mfcnn_home, mfcnn_bundles, tmp_path):
    environment = {**os.environ, "QZOO_HOME": str(mfcnn_home)}
    command = [QZOO, "build", "mfcnn", "--int8", "--target", "onnxruntime", "--json"]
    built = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert built["verified"] == "passed"
    digits = Digits()
    sample = digits.samples("held-out")[0]
    digits.image(sample).save(tmp_path / "digit.png")
    command = [QZOO, "run", built["engine"], tmp_path / "digit.png", "--json"]
    ran = json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert ran["results"][0]["classes"][0]["index"] == sample.label


def test_tensorrt_plans_every_convolution_in_int8_but_those_that_stay_in_float(portable, tmp_path):
    rtx = TensorRTRTX()
    if not rtx.probe().builds:
        pytest.skip(f"tensorrt-rtx: {rtx.probe().reason}")
    recipe, target = SPEC.recipe("tensorrt-rtx", "int8", rtx.roles), rtx.target_for("sm89")
    lowered = rtx.lower(portable, recipe, target)
    table = rtx.build(serialize(lowered), {**rtx.fixed(target, recipe), "batch": "1:8:32"}, tmp_path / "engine")
    quantized = {str(node.name) for node in lowered.graph if node.op_type == "Conv" and node.inputs[1].producer()}
    assert {one.node for one in table.operators if one.operator == "Conv" and one.dtype == "Int8"} == quantized
    assert table.coverage("Conv") == (16, 20)  # not the two that read the image, nor the two of spatial attention
    assert table.coverage("Gemm") == (2, 2)
