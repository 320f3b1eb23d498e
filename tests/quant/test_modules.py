"""How a quantized module is made from its float twin, what it shares with it, and that it trains."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from module_cases import CASES, made, random_values
from torch import nn

from qzoo.errors import SpecError
from qzoo.quant import modules
from qzoo.quant.calibrate import calibrate
from qzoo.quant.insert import AUTO_SWAPS, resolve

NAMES = list(CASES)


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """A float twin and the quantized module made from it."""
    twin = made(name)
    return twin, CASES[name].quantized(twin, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_dict_is_the_float_twins_until_calibration(name):
    twin, quantized = pair(name)
    assert list(quantized.state_dict()) == list(twin.state_dict())
    assert all(torch.equal(value, quantized.state_dict()[key]) for key, value in twin.state_dict().items())
    state = {key: torch.randn_like(value) for key, value in twin.state_dict().items()}
    quantized.load_state_dict(state, strict=True)
    assert all(torch.equal(quantized.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", NAMES)
def test_an_uncalibrated_module_computes_what_its_float_twin_computes(name):
    twin, quantized = pair(name)
    inputs, arguments = CASES[name].inputs(random_values(3)), CASES[name].arguments
    assert torch.equal(quantized(*inputs, **arguments), twin(*inputs, **arguments))


@pytest.mark.parametrize("name", NAMES)
def test_the_float_twin_is_left_as_it_was_and_its_parameters_are_shared(name):
    twin = made(name)
    kind, before = type(twin), (list(twin.named_modules()), list(twin.state_dict()))
    quantized = CASES[name].quantized(twin, 0)
    assert type(twin) is kind
    assert (list(twin.named_modules()), list(twin.state_dict())) == before
    ours = dict(quantized.named_parameters())
    assert all(ours[key] is parameter for key, parameter in twin.named_parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_mode_is_the_float_twins_all_the_way_down(name, training):
    quantized = CASES[name].quantized(made(name).train(training), 0)
    assert {module.training for module in quantized.modules()} == {training}


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_has_quantizers_of_its_own(name):
    _, quantized = pair(name)
    copied = deepcopy(quantized)
    assert set(modules.quantizers(copied).values()).isdisjoint(modules.quantizers(quantized).values())


@pytest.mark.parametrize(("name", "roles"), [("add", ["skip", "branch"]), ("concat", ["input"]), ("linear", None)])
def test_quantizers_have_the_roles_that_recipes_name(name, roles):
    found = [quantizer.role for quantizer in modules.quantizers(pair(name)[1]).values()]
    assert found == (roles or ["input", "weight"])


@pytest.mark.parametrize(
    ("kind", "axis", "wanted"),
    [
        (nn.Conv2d, 0, 0),
        (nn.Conv2d, None, None),
        (nn.ConvTranspose2d, 0, 1),
        (nn.ConvTranspose2d, None, None),
    ],
)
def test_per_output_channel_is_axis_1_of_a_transposed_convolution_and_axis_0_of_others(kind, axis, wanted):
    made_from = getattr(modules, f"Quant{kind.__name__}").from_float(kind(2, 3, 1), axis)
    assert made_from.weight_quantizer.axis == wanted


def test_a_weight_axis_that_is_no_output_channel_is_refused():
    with pytest.raises(SpecError, match=r"QuantConv2d: weight_axis is 1; use 0 \(per output channel\) or None"):
        modules.QuantConv2d.from_float(nn.Conv2d(1, 1, 1), 1)


@pytest.mark.parametrize("kind", [f"{kind}MaxPool{n}d" for kind in ("", "Adaptive") for n in (1, 2, 3)])
def test_a_max_pooling_that_returns_indices_is_refused(kind):
    pooling = getattr(nn, kind)(2, return_indices=True)
    with pytest.raises(SpecError, match=rf"Quant{kind}: a pooling with return_indices=True .* keep_float") as raised:
        getattr(modules, f"Quant{kind}").from_float(pooling, 0)
    assert raised.value.exit_code == 8


class Standardized(nn.Conv2d):
    """A Conv2d that computes something else."""

    def forward(self, x):
        return super().forward(x - x.mean())


@pytest.mark.parametrize("name", ["QuantConv2d", "QuantAvgPool2d", "QuantAdd", "QuantMul", "QuantConcat"])
@pytest.mark.parametrize("other", [nn.Linear(1, 1), Standardized(1, 1, 1)], ids=["another class", "a derived class"])
def test_another_kind_of_module_is_refused_by_name(name, other):
    with pytest.raises(SpecError, match=rf"{name} can't be made from a .*\.{type(other).__name__}, which may compute"):
        getattr(modules, name).from_float(other, 0)


def test_a_weight_quantizer_beside_no_weight_is_named():
    module = nn.Module()
    module.weight_quantizer = modules.QuantLinear.from_float(nn.Linear(1, 1), None).weight_quantizer
    with pytest.raises(SpecError, match=r"head\.weight_quantizer: Module has a weight quantizer but no tensor"):
        calibrate(nn.ModuleDict({"head": module}), [], "max", "")


def test_pytorchs_own_classes_are_not_patched():
    assert nn.Conv2d.__module__ == "torch.nn.modules.conv"
    assert not hasattr(nn.Conv2d(1, 1, 1), "input_quantizer")


def test_automatic_placement_knows_the_types_that_the_toolkit_replaces():
    from pytorch_quantization.quant_modules import _DEFAULT_QUANT_MAP

    theirs = {entry.mod_name for entry in _DEFAULT_QUANT_MAP} - {"LSTM", "LSTMCell"}
    assert {(swap.type or "").removeprefix("torch.nn.") for swap in AUTO_SWAPS} == theirs
    assert all(isinstance(resolve(swap.to), type) for swap in AUTO_SWAPS)


class Mixed(nn.Module):
    """All three kinds: (N, 4, 8, 8) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = modules.QuantConv2d.from_float(nn.Conv2d(4, 8, 3, stride=2, padding=1), 0)
        self.up = modules.QuantConvTranspose2d.from_float(nn.ConvTranspose2d(8, 4, 2, stride=2), 0)
        self.concat, self.pool = modules.QuantConcat(), modules.QuantAvgPool2d.from_float(nn.AvgPool2d(4), 0)
        self.fc = modules.QuantLinear.from_float(nn.Linear(32, 3), 0)

    def forward(self, x):
        return self.fc(self.pool(self.concat(self.up(self.down(x).relu()), x)).flatten(1))


def test_a_calibrated_network_of_all_three_kinds_trains():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Mixed()
    images = random_values(0, 32).reshape(-1, 4, 8, 8)
    labels = images.mean((2, 3))[:, :3].argmax(1)
    calibrate(network.eval(), [images], "max", "")
    network.train()
    optimizer, losses = torch.optim.Adam(network.parameters(), 0.01), []
    for _ in range(60):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]  # amax is frozen, so weights cannot outgrow their calibrated ranges
    assert all(parameter.grad is not None for parameter in network.parameters())
