"""Quantized modules from calibration to clean Q/DQ: one network of all of them, exported once; each is named."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from module_cases import CASES, random_values, variants, weight_amax
from torch import Tensor, nn

from qzoo.backends.ort import reference
from qzoo.export import export
from qzoo.quant.calibrate import calibrate
from qzoo.quant.modules import quantizers
from qzoo.records import CalibrationTable

VARIANTS = {f"{name}, {'per tensor' if axis is None else 'per channel'}": (name, axis) for name, axis in variants()}
PATHS = {variant: f"m{index}" for index, variant in enumerate(VARIANTS)}


class Everything(nn.Module):
    """(N, 4, 8, 8) -> one output for each variant of each case."""

    def __init__(self) -> None:
        super().__init__()
        for variant, (name, axis) in VARIANTS.items():
            case = CASES[name]
            self.add_module(PATHS[variant], case.quantized(case.twin(), axis))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for variant, (name, _) in VARIANTS.items():
            case = CASES[name]
            outputs.append(self.get_submodule(PATHS[variant])(*case.inputs(x.flatten(1)), **case.arguments))
        return outputs


@pytest.fixture(scope="module")
def network() -> Everything:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Everything().eval()
    for path, quantizer in quantizers(model).items():
        quantizer.path = path
    return model


@pytest.fixture(scope="module")
def table(network) -> CalibrationTable:
    return calibrate(network, [random_values(seed).reshape(-1, 4, 8, 8) for seed in (0, 1)], "max", "")


@pytest.fixture(scope="module")
def portable(network, table) -> ir.Model:
    return export(network, "input", (4, 8, 8), list(PATHS.values()))


@pytest.fixture(scope="module")
def compared(network, portable) -> dict[int, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Of batches of 1 and 5 new images: each variant's outputs in onnxruntime, optimizations off, and in PyTorch."""
    session, found = reference(ir.to_proto(portable).SerializeToString()), {}
    for batch in (1, 5):
        images = random_values(9, batch).reshape(-1, 4, 8, 8)
        with torch.no_grad():
            want = [output.numpy() for output in network(images)]
        got = session.run(list(PATHS.values()), {"input": images.numpy()})
        found[batch] = dict(zip(VARIANTS, zip(got, want, strict=True), strict=True))
    return found


def belongs(node: ir.Node, path: str) -> bool:
    return any(name.startswith(f"{path}.") for name in node.metadata_props.get("qzoo.module", "").split(","))


@pytest.mark.parametrize("variant", VARIANTS)
def test_calibration_finds_the_largest_magnitude_that_each_quantizer_sees(network, table, variant):
    name, axis = VARIANTS[variant]
    case, path = CASES[name], PATHS[variant]
    inputs = case.inputs(torch.cat([random_values(0), random_values(1)]))
    for quantizer in set(case.quantizers):
        seen = [x.abs().max() for x, its in zip(inputs, case.quantizers, strict=True) if its == quantizer]
        assert table.ranges[f"{path}.{quantizer}"].amax == pytest.approx((float(max(seen)),))
    if case.channel_axis is not None:
        weight = network.get_submodule(path).weight
        channel_axis = None if axis is None else case.channel_axis
        found = table.ranges[f"{path}.weight_quantizer"]
        assert found.axis == channel_axis
        assert found.amax == pytest.approx(weight_amax(weight, channel_axis).reshape(-1).tolist())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batch", [1, 5])
def test_the_exported_graph_computes_what_the_module_does_at_any_batch(compared, variant, batch):
    got, want = compared[batch][variant]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.ptp(want))


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_input_has_one_pair_and_each_weight_is_stored_as_int8(portable, network, variant):
    name, axis = VARIANTS[variant]
    case, path = CASES[name], PATHS[variant]
    nodes = [node for node in portable.graph if belongs(node, path)]
    quantizes = [node for node in nodes if node.op_type == "QuantizeLinear"]
    weights = [node for node in nodes if node.metadata_props["qzoo.role"] == "weight"]
    assert len(quantizes) == len(case.shapes)
    assert len(nodes) - 2 * len(quantizes) == len(weights) == (case.channel_axis is not None)
    for node in weights:
        stored, scale = (value.const_value.numpy() for value in node.inputs)
        assert stored.dtype == np.int8
        assert stored.shape == tuple(network.get_submodule(path).weight.shape)
        assert np.abs(stored).max() == 127
        assert scale.shape == (() if axis is None else (stored.shape[case.channel_axis],))
        assert axis is None or node.attributes.get_int("axis") == case.channel_axis


@pytest.mark.parametrize("variant", VARIANTS)
def test_behind_its_quantizers_a_module_is_its_own_operators_only(portable, variant):
    """Walks back from the module's output to the DequantizeLinears it reads."""
    (output,) = [value for value in portable.graph.outputs if value.name == PATHS[variant]]
    waiting, found = [output.producer()], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node.op_type == "DequantizeLinear":
            assert belongs(node, PATHS[variant])
        elif node is not None:
            found.add(node)
            waiting += [value.producer() for value in node.inputs if value is not None]
    assert sorted(node.op_type for node in found) == sorted(CASES[VARIANTS[variant][0]].operators)


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant.startswith("concat")])
def test_the_branches_of_a_concat_share_one_scale(portable, variant):
    pairs = [node for node in portable.graph if belongs(node, PATHS[variant]) and node.op_type == "QuantizeLinear"]
    assert len(pairs) == len(CASES[VARIANTS[variant][0]].shapes)
    assert len({node.inputs[1].const_value.numpy().tobytes() for node in pairs}) == 1
