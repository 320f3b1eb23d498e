"""Exported graph -> portable graph, held to the exported graph's own values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from qzoo.errors import GraphError
from qzoo.export import export, export_with_float
from qzoo.graph.canonicalize import canonicalize
from qzoo.quant.calibrate import calibrate
from qzoo.quant.modules import QuantAdaptiveAvgPool2d, QuantAdd, QuantConv2d, QuantLinear, quantizers

INPUT = '<axis: int = -1, low: int = -128, role: string = "input", path: string = "{}">'
WEIGHT = '<axis: int = {}, low: int = -127, role: string = "weight", path: string = "conv.weight_quantizer">'
CONV = f"""
g (float[N,2,4,4] x) => (float[N,3,4,4] y) <float[N,2,4,4] x_fq, float[3,2,1,1] w_fq> {{
  x_fq = qzoo.FakeQuantize {INPUT.format("conv.input_quantizer")} (x, x_scale)
  w_fq = qzoo.FakeQuantize {WEIGHT.format(0)} (w, w_scale)
  [conv] y = Conv (x_fq, w_fq)
}}
"""


def image(seed: int = 0, shape: tuple[int, ...] = (3, 2, 4, 4)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def roles_and_modules(model: ir.Model) -> set[tuple[str, str, str]]:
    return {
        (node.op_type, node.metadata_props["qzoo.role"], node.metadata_props["qzoo.module"])
        for node in model.graph
        if "Linear" in node.op_type
    }


class Residual(nn.Module):
    """Every quantized module, and a tensor that is read in three roles."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = QuantConv2d.from_float(nn.Conv2d(2, 4, 3, padding=1), 0)
        self.relu = nn.ReLU()
        self.conv = QuantConv2d.from_float(nn.Conv2d(4, 4, 3, padding=1), 0)
        self.shortcut = QuantConv2d.from_float(nn.Conv2d(4, 4, 1), 0)
        self.add = QuantAdd()
        self.again = QuantAdd()
        self.pool = QuantAdaptiveAvgPool2d.from_float(nn.AdaptiveAvgPool2d(1), None)
        self.fc = QuantLinear.from_float(nn.Linear(4, 5), 0)

    def forward(self, x):
        x = self.relu(self.stem(x))
        y = self.again(self.add(self.shortcut(x), self.conv(x)), x)
        return self.fc(torch.flatten(self.pool(y), 1))


@pytest.fixture(scope="module")
def network():
    """The calibrated residual network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Residual().eval()
    for path, quantizer in quantizers(model).items():
        quantizer.path = path
    calibrate(model, [torch.from_numpy(image(1, (8, 2, 6, 6)))], "max", "")
    return model


@pytest.fixture(scope="module")
def portable(network):
    return export(network, "input", (2, 6, 6), ("logits",))


def test_the_portable_graph_computes_what_the_exported_one_does(parse, evaluate):
    scales = {"x_scale": np.float32(0.02), "w_scale": np.array([0.01, 0.02, 0.03], np.float32)}
    exported = parse(CONV, w=image(2, (3, 2, 1, 1)), **scales)
    np.testing.assert_array_equal(evaluate(canonicalize(exported), x=image()), evaluate(exported, x=image()))


def test_the_exported_graph_itself_is_left_as_it_was(parse):
    exported = parse(CONV, w=image(2, (3, 2, 1, 1)), x_scale=np.float32(1), w_scale=np.ones(3, np.float32))
    before = ir.to_proto(exported).SerializeToString(deterministic=True)
    canonicalize(exported)
    assert ir.to_proto(exported).SerializeToString(deterministic=True) == before


def test_stored_weights_are_torchs_own_per_channel_fake_quantized_ones(portable, network):
    initializers = portable.graph.initializers
    for name in ("stem", "conv", "shortcut", "fc"):
        weight = network.get_submodule(name).weight.detach()
        scales = weight.flatten(1).abs().amax(1) / 127
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        expected = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127).numpy()
        stored = initializers[f"{name}.weight.int8"].const_value.numpy()
        steps = initializers[f"{name}.weight.scale"].const_value.numpy()
        assert stored.dtype == np.int8
        np.testing.assert_array_equal((stored.T * steps).T, expected)


def test_a_weight_per_tensor_is_stored_with_one_scale(parse, evaluate):
    weight = image(2, (3, 2, 1, 1))
    text = CONV.replace(WEIGHT.format(0), WEIGHT.format(-1))
    exported = parse(text, w=weight, x_scale=np.float32(0.5), w_scale=np.float32(0.25))
    portable = canonicalize(exported)
    np.testing.assert_array_equal(portable.graph.initializers["w.int8"].const_value.numpy(), np.rint(weight * 4))
    np.testing.assert_array_equal(evaluate(portable, x=image()), evaluate(exported, x=image()))


def test_a_weight_beyond_the_calibrated_range_is_clamped_to_127_on_both_sides(parse):
    weight = np.array([9, -9, 0.5, -0.5, 1.5, 2.5], np.float32).reshape(3, 2, 1, 1)
    exported = parse(CONV, w=weight, x_scale=np.float32(1), w_scale=np.array([0.01, 1, 1], np.float32))
    stored = canonicalize(exported).graph.initializers["w.int8"].const_value.numpy()
    np.testing.assert_array_equal(stored.ravel(), [127, -127, 0, 0, 2, 2])  # a half is rounded to even


def test_the_portable_graph_decides_as_the_fake_quantized_network(portable, network, evaluate):
    images = image(3, (4, 2, 6, 6))
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(evaluate(portable, input=images)[0], expected, atol=1e-5 * np.abs(expected).max())


def test_a_network_without_quantizers_exports_to_a_graph_without_pairs(evaluate):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()).eval()
    graph, images = export(model, "input", (2, 5, 5), ("logits",)), image(3, (2, 2, 5, 5))
    assert {node.op_type for node in graph.graph} == {"Conv", "Relu"}
    expected = model(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(evaluate(graph, input=images)[0], expected, atol=1e-6)


class Sequence(nn.Module):
    """(N, 4, 6) -> (N, 4, 5): the exporter writes its linear layer as a product with the transposed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = QuantLinear.from_float(nn.Linear(6, 5), 0)

    def forward(self, x):
        return self.fc(x)


@pytest.mark.parametrize(("kind", "shape"), [(Residual, (2, 6, 6)), (Sequence, (4, 6))])
def test_one_export_gives_the_portable_graph_and_that_of_the_network_in_float(kind, shape, evaluate):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind().eval()
    images = torch.from_numpy(image(3, (4, *shape)))
    with torch.no_grad():
        expected = model(images).numpy()  # nothing is calibrated yet
    for path, quantizer in quantizers(model).items():
        quantizer.path = path
    calibrate(model, [images], "max", "")
    portable, floating = export_with_float(model, "input", shape, ("logits",))
    assert ir.to_proto(portable) == ir.to_proto(export(model, "input", shape, ("logits",)))
    assert not {"QuantizeLinear", "DequantizeLinear", "Transpose"} & {node.op_type for node in floating.graph}
    found = evaluate(floating, input=images.numpy())[0]
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_without_quantizers_an_output_that_had_one_keeps_its_name_and_an_input_its_values(parse, evaluate):
    text = f"""
    g (float[N,2] x) => (float[N,2] y) {{ y = qzoo.FakeQuantize {INPUT.format("q")} (x, x_scale) }}
    """
    floating, values = canonicalize(parse(text, x_scale=np.float32(1)), quantized=False), image(0, (3, 2))
    assert [value.name for value in floating.graph.outputs] == ["y"]
    np.testing.assert_array_equal(evaluate(floating, x=values)[0], values)


def test_export_leaves_a_training_network_in_training(network):
    network.train()
    try:
        export(network, "input", (2, 6, 6), ("logits",))
        assert all(module.training for module in network.modules())
    finally:
        network.eval()


def test_every_pair_is_annotated_with_its_quantizers_role_and_path(portable, network):
    weights = {("DequantizeLinear", "weight", path) for path in quantizers(network) if "weight" in path}
    stem, fc = ("input", "stem.input_quantizer"), ("input", "fc.input_quantizer")
    own = [stem, fc, ("skip", "add.skip_quantizer"), ("branch", "add.branch_quantizer")]
    own += [("skip", "again.skip_quantizer"), ("input", "pool.input_quantizer")]
    shared = ("branch,input", "again.branch_quantizer,conv.input_quantizer,shortcut.input_quantizer")
    pairs = {(op, *names) for op in ("QuantizeLinear", "DequantizeLinear") for names in (*own, shared)}
    assert roles_and_modules(portable) == weights | pairs


def test_a_consumer_keeps_the_role_that_it_reads_a_shared_pair_in(portable):
    read = {
        value: node.op_type
        for node in portable.graph
        for key, value in node.metadata_props.items()
        if key.startswith("qzoo.input.") and not value.startswith("weight")
    }
    assert read == {
        "input:stem.input_quantizer": "Conv",
        "input:conv.input_quantizer": "Conv",
        "input:shortcut.input_quantizer": "Conv",
        "skip:add.skip_quantizer": "Add",
        "branch:add.branch_quantizer": "Add",
        "skip:again.skip_quantizer": "Add",
        "branch:again.branch_quantizer": "Add",
        "input:pool.input_quantizer": "GlobalAveragePool",
        "input:fc.input_quantizer": "Gemm",
    }


@pytest.mark.parametrize(("scale", "count"), [(0.02, 1), (0.03, 2)])
def test_two_quantizers_on_one_tensor_share_a_pair_only_with_one_scale(parse, evaluate, scale, count):
    text = CONV.replace(
        "[conv] y = Conv (x_fq, w_fq)",
        f"""x_fq2 = qzoo.FakeQuantize {INPUT.format("other.input_quantizer")} (x, other_scale)
        first = Conv (x_fq, w_fq) second = Conv (x_fq2, w_fq) y = Add (first, second)""",
    )
    scales = {"x_scale": np.float32(0.02), "other_scale": np.float32(scale), "w_scale": np.ones(3, np.float32)}
    exported = parse(text, w=image(2, (3, 2, 1, 1)), **scales)
    portable = canonicalize(exported)
    quantizes = [node for node in portable.graph if node.op_type == "QuantizeLinear"]
    assert len(quantizes) == count
    assert {path for node in quantizes for path in node.metadata_props["qzoo.module"].split(",")} == {
        "conv.input_quantizer",
        "other.input_quantizer",
    }
    np.testing.assert_array_equal(evaluate(portable, x=image()), evaluate(exported, x=image()))


def test_a_module_that_is_called_twice_has_its_quantizer_on_both_inputs(evaluate):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = QuantConv2d.from_float(nn.Conv2d(2, 2, 3, padding=1), 0)

        def forward(self, x):
            return self.conv(torch.relu(self.conv(x)))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Twice().eval()
    for path, quantizer in quantizers(model).items():
        quantizer.path = path
    images = image(4, (2, 2, 5, 5))
    calibrate(model, [torch.from_numpy(images)], "max", "")
    portable = export(model, "input", (2, 5, 5), ("logits",))
    assert [node.op_type for node in portable.graph].count("QuantizeLinear") == 2
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(evaluate(portable, input=images)[0], expected, atol=1e-5 * np.abs(expected).max())


def test_a_quantizer_on_an_output_that_already_has_its_pair_is_refused_by_name(parse):
    text = f"""
    g (float[N,2] x) => (float[N,2] y, float[N,2] z) {{
      y = qzoo.FakeQuantize {INPUT.format("one")} (x, scale)
      z = qzoo.FakeQuantize {INPUT.format("two")} (x, scale)
    }}"""
    with pytest.raises(GraphError, match=r"^two\.dequantize: a graph output is a second pair on one tensor"):
        canonicalize(parse(text, scale=np.float32(1)))


MEAN = """
g (float[N,2,4,4] x) => (float[N,2,a,b] y) { y = ReduceMean <keepdims: int = 1> (x, axes) }
"""


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2], [3, -2]])
def test_a_mean_over_height_and_width_becomes_global_average_pooling(parse, evaluate, axes):
    exported = parse(MEAN, axes=np.array(axes, np.int64))
    portable = canonicalize(exported)
    assert [node.op_type for node in portable.graph] == ["GlobalAveragePool"]
    # numpy sums one axis after the other, or both at once
    np.testing.assert_allclose(evaluate(portable, x=image()), evaluate(exported, x=image()), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "keepdims", "axes"),
    [
        ("N,2,4,4", 0, [2, 3]),
        ("N,2,4,4", 1, [1, 2]),
        ("N,2,4,4", 1, [2]),
        ("N,2,4,4,4", 1, [2, 3]),
        ("N,2,4", 1, [1, 2]),
    ],
)
def test_any_other_mean_stays_a_mean(parse, shape, keepdims, axes):
    kept = ",".join("abcde"[: shape.count(",") + 1 - (0 if keepdims else len(axes))])
    text = f"g (float[{shape}] x) => (float[{kept}] y) {{ y = ReduceMean <keepdims: int = {keepdims}> (x, axes) }}"
    portable = canonicalize(parse(text, axes=np.array(axes, np.int64)))
    assert [node.op_type for node in portable.graph] == ["ReduceMean"]


def test_nothing_of_the_exporters_machine_stays_in_the_graph(portable):
    serialized = ir.to_proto(portable).SerializeToString()
    assert b".py" not in serialized  # stack traces name the files of the network and of torch
    kept = {key for node in portable.graph for key in node.metadata_props}
    assert kept == {"qzoo.role", "qzoo.module", "qzoo.input.0", "qzoo.input.1"}


def test_an_exported_graph_that_breaks_an_invariant_is_refused_by_the_quantizers_name(parse):
    exported = parse(CONV, w=image(2, (3, 2, 1, 1)), x_scale=np.float32(0), w_scale=np.ones(3, np.float32))
    with pytest.raises(GraphError, match=r"^conv\.input_quantizer\.quantize: every scale must be finite and > 0"):
        canonicalize(exported)


def test_a_computed_weight_is_refused_by_the_quantizers_name(parse):
    text = CONV.replace("w_fq = ", "w_neg = Neg (w) w_fq = ").replace("(w, w_scale)", "(w_neg, w_scale)")
    exported = parse(text, w=image(2, (3, 2, 1, 1)), x_scale=np.float32(1), w_scale=np.ones(3, np.float32))
    with pytest.raises(GraphError, match=r"^weight of conv\.weight_quantizer must be an initializer, but w_neg is"):
        canonicalize(exported)


def test_weights_per_input_channel_are_refused(parse):
    exported = parse(
        CONV.replace(WEIGHT.format(0), WEIGHT.format(1)),
        w=image(2, (3, 2, 1, 1)),
        x_scale=np.float32(1),
        w_scale=np.ones(2, np.float32),
    )
    with pytest.raises(GraphError, match=r"conv\.weight_quantizer\.dequantize: .* on axis 0, not 1"):
        canonicalize(exported)
