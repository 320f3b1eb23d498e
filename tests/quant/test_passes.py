"""Folding BatchNorm, inserting quantizers, calibrating, and finding the worst layers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from qzoo.errors import CalibrationError, SpecError
from qzoo.quant.calibrate import apply_table, calibrate
from qzoo.quant.fuse import fold_batchnorm
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import Add, QuantAdd, QuantConv2d, QuantLinear, quantizers
from qzoo.quant.sensitivity import layer_errors
from qzoo.records import CalibrationTable, decode, encode
from qzoo.spec import Fusion, InputSpec, ModelSpec, Preprocess, QuantSwap, Recipe

SWAPS = (
    QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
    QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
    QuantSwap("qzoo.quant.modules:QuantAdd", path="add"),
)
FUSIONS = (Fusion("conv1", "bn1", "relu"), Fusion("conv2", "bn2"))
RECIPE = Recipe(target="onnxruntime", precision="int8")
SPEC = ModelSpec(
    name="net",
    summary="a test",
    builder="nowhere:nothing",
    version="1",
    input=InputSpec(shape=(3, 8, 8), preprocess=Preprocess(resize=8, crop=8, mean=(0.0,) * 3, std=(1.0,) * 3)),
    num_classes=2,
    head="fc",
    fusions=FUSIONS,
    swaps=SWAPS,
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.add, self.fc = Add(), nn.Linear(4, 2)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(self.add(x, self.bn2(self.conv2(x))).mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    made = Net()
    for bn in (made.bn1, made.bn2):
        bn.running_mean.normal_()
        bn.running_var.uniform_(0.5, 2)
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
    return made.eval()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return list(torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1)).split(8))


CASES = {
    "as trained": lambda bn: None,
    "gamma 0": lambda bn: bn.weight.data[0].zero_(),
    "gamma 1e-12": lambda bn: bn.weight.data[0].fill_(1e-12),
    "negative gamma": lambda bn: bn.weight.data.neg_(),
    "variance 0": lambda bn: bn.running_var[0].zero_(),
}


@pytest.mark.parametrize("case", CASES)
def test_folding_changes_no_output(net, batches, case):
    CASES[case](net.bn1)
    folded = deepcopy(net)
    assert fold_batchnorm(folded, FUSIONS) == [("conv1", "bn1", "relu"), ("conv2", "bn2", None)]
    assert isinstance(folded.bn1, nn.Identity)
    scale = float(net(batches[0]).detach().abs().max())
    torch.testing.assert_close(folded(batches[0]), net(batches[0]), rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("fusions", "words"),
    [
        ((Fusion("conv9", "bn9"),), "matches no module"),
        ((Fusion("conv1", "bn7"),), "there is no module bn7"),
        ((Fusion("fc", "bn1"),), "fc is a Linear, not a convolution"),
        ((Fusion("conv1", "relu"),), "relu is a ReLU, not a BatchNorm"),
        ((Fusion("conv1", "bn1"), Fusion("conv2", "bn1")), "Identity, not a BatchNorm"),
    ],
)
def test_a_fusion_that_does_not_fit_names_the_module(net, fusions, words):
    with pytest.raises(SpecError, match=words) as raised:
        fold_batchnorm(net, fusions)
    assert raised.value.exit_code == 8


def test_insertion_leaves_the_network_it_was_given_alone(net):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    made = insert_quantizers(net, SPEC, RECIPE)
    assert isinstance(made.conv1, QuantConv2d)
    assert type(net.conv1) is nn.Conv2d
    assert isinstance(net.bn1, nn.BatchNorm2d)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_insertion_draws_no_random_numbers(net):
    state = torch.random.get_rng_state()
    insert_quantizers(net, SPEC, RECIPE)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_manual_placement_quantizes_the_add_and_automatic_does_not(net):
    assert isinstance(insert_quantizers(net, SPEC, RECIPE).add, QuantAdd)
    automatic = insert_quantizers(net, SPEC, replace(RECIPE, placement="auto"))
    assert type(automatic.add) is Add
    assert isinstance(automatic.conv1, QuantConv2d)
    assert isinstance(automatic.fc, QuantLinear)


@pytest.mark.parametrize("how", ["spec", "recipe"])
def test_what_is_kept_in_float_is(net, how):
    spec = replace(SPEC, keep_float=("conv*",)) if how == "spec" else SPEC
    recipe = replace(RECIPE, keep_float=("conv*",)) if how == "recipe" else RECIPE
    made = insert_quantizers(net, spec, recipe)
    assert not isinstance(made.conv1, QuantConv2d)
    assert isinstance(made.fc, QuantLinear)


def test_every_quantizer_knows_its_path(net):
    for path, quantizer in quantizers(insert_quantizers(net, SPEC, RECIPE)).items():
        assert quantizer.path == path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep_float": ("layer9.*",)}, "'layer9.*' matches no module"),
        ({"swaps": (QuantSwap("qzoo.quant.modules:QuantAdd", path="sum"),)}, "'sum' matches no module"),
        ({"swaps": (QuantSwap("qzoo.quant.modules:QuantNothing", path="add"),)}, "QuantNothing"),
        ({"swaps": (QuantSwap("nowhere.at_all:X", path="add"),)}, "nowhere"),
        ({"swaps": (QuantSwap("qzoo.quant.modules:QuantAdd", type="torch.nn.functional.relu"),)}, "is not a class"),
        ({"swaps": (QuantSwap("qzoo.quant.modules:QuantConv2d", path="fc"),)}, r"^fc: QuantConv2d can't be .*\.Linear"),
        ({"swaps": ()}, "no module was quantized"),
    ],
)
def test_a_declaration_that_does_not_fit_is_named(net, changes, words):
    with pytest.raises(SpecError, match=words):
        insert_quantizers(net, replace(SPEC, **changes), RECIPE)


def test_max_is_the_largest_magnitude_that_reached_each_quantizer(net, batches):
    quantized = insert_quantizers(net, SPEC, RECIPE)
    seen: dict[str, float] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, inputs, _o, path=path: seen.__setitem__(
                path, max(seen.get(path, 0), float(inputs[0].abs().max()))
            )
        )
        for path, module in quantizers(quantized).items()
    ]
    table = calibrate(quantized, batches, "max", "hash")
    for hook in hooks:
        hook.remove()
    for path, found in table.ranges.items():
        if found.role != "weight":
            assert found.amax == (pytest.approx(seen[path], rel=1e-6),)
    assert (table.samples, table.sample_list_sha256) == (24, "hash")


@pytest.mark.parametrize("calibrator", ["max", "percentile:50"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_always_take_the_maximum(net, batches, calibrator, per_channel):
    quantized = insert_quantizers(net, SPEC, replace(RECIPE, per_channel=per_channel))
    table = calibrate(quantized, batches, calibrator, "hash")
    for path in ("conv1", "conv2", "fc"):
        weight = quantized.get_submodule(path).weight.detach().abs()
        found = table.ranges[f"{path}.weight_quantizer"]
        want = weight.flatten(1).amax(1) if per_channel else weight.max()[None]
        assert found.amax == pytest.approx(tuple(want.tolist()))
        assert found.method == "max"


def test_weights_that_are_not_finite_name_the_layer(net, batches):
    net.conv2.weight.data[1] = float("nan")
    with pytest.raises(CalibrationError, match=r"conv2\.weight_quantizer: amax is nan"):
        calibrate(insert_quantizers(net, SPEC, RECIPE), batches, "max", "hash")


def test_a_module_that_is_never_called_is_named(net, batches):
    net.unused = nn.Linear(3, 3)
    with pytest.raises(CalibrationError, match=r"unused\.input_quantizer: no data reached"):
        calibrate(insert_quantizers(net, SPEC, RECIPE), batches, "max", "hash")


def test_a_table_comes_back_from_json_and_gives_the_same_network(net, batches):
    first, second = (insert_quantizers(net, SPEC, RECIPE) for _ in range(2))
    table = calibrate(first, batches, "percentile:99.9", "hash")
    apply_table(second, decode(encode(table), CalibrationTable))
    with torch.no_grad():
        assert torch.equal(first(batches[0]), second(batches[0]))


def test_a_table_of_other_quantizers_is_refused(net, batches):
    table = calibrate(insert_quantizers(net, SPEC, RECIPE), batches, "max", "hash")
    other = insert_quantizers(net, SPEC, replace(RECIPE, placement="auto"))
    with pytest.raises(CalibrationError, match=r"add\.branch_quantizer is in only one"):
        apply_table(other, table)


def test_the_layer_with_an_outlier_comes_first_and_the_network_is_left_as_it_was(net, batches):
    net.conv2.weight.data[0, 0, 0, 0] = 1000.0
    quantized = insert_quantizers(net, SPEC, replace(RECIPE, per_channel=False))
    calibrate(quantized, batches, "max", "hash")
    with torch.no_grad():
        before = quantized(batches[0])
        errors = layer_errors(quantized, batches[0])
        assert torch.equal(quantized(batches[0]), before)
    assert errors[0].path in {"conv2", "add"}
    assert {error.path for error in errors} == {"conv1", "conv2", "add", "fc"}
    assert [error.sqnr_db for error in errors] == sorted(error.sqnr_db for error in errors)
    assert not any(module._forward_hooks for module in quantized.modules())


def test_a_layers_sqnr_is_that_of_it_alone_quantized(net, batches):
    quantized = insert_quantizers(net, SPEC, RECIPE)
    calibrate(quantized, batches, "max", "hash")
    folded = deepcopy(net)
    fold_batchnorm(folded, FUSIONS)
    with torch.no_grad():
        want, got = folded.conv1(batches[0]).double(), quantized.conv1(batches[0]).double()
        decibels = float(10 * torch.log10(want.square().sum() / (want - got).square().sum()))
        found = {error.path: error.sqnr_db for error in layer_errors(quantized, batches[0])}
    assert found["conv1"] == pytest.approx(decibels, abs=0.01)
