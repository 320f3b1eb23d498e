from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from qzoo.quant.fuse import fold_batchnorm
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import Add, Mul, QuantAdaptiveAvgPool2d, QuantAdd, QuantConv2d, QuantLinear, QuantMul
from qzoo.spec import ModelSpec, Recipe
from qzoo_mobilenet import model as networks
from qzoo_mobilenet import qzoo_models

SPECS: dict[str, ModelSpec] = {spec.name: spec for spec in qzoo_models()}


def build(name: str) -> nn.Module:
    return getattr(networks, name)(SPECS[name].num_classes)


@pytest.mark.parametrize("name", SPECS)
def test_torchvisions_state_dict_gives_torchvisions_logits(name: str):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    with torch.device("meta"):
        ours = build(name).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected = theirs(images)
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", SPECS)
def test_every_batchnorm_belongs_to_exactly_one_fusion(name: str):
    with torch.device("meta"):
        modules = dict(build(name).named_modules())
    bound = [bn for fusion in SPECS[name].fusions for _, bn, _ in fusion.bind(modules)]
    assert sorted(bound) == sorted(path for path, module in modules.items() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("name", SPECS)
def test_folding_batchnorm_keeps_the_logits(name: str):
    torch.manual_seed(1)
    model = build(name).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.double)
    with torch.inference_mode():
        expected = model(images)
        fold_batchnorm(model, SPECS[name].fusions)
        torch.testing.assert_close(model(images), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(("name", "adds", "gates"), [("v2", 10, 0), ("v3_large", 10, 8), ("v3_small", 6, 9)])
def test_swaps_reach_every_conv_linear_add_gate_and_pool(name: str, adds: int, gates: int):
    name = f"mobilenet_{name}"
    modules = list(insert_quantizers(build(name), SPECS[name], Recipe(target="openvino", precision="int8")).modules())
    for plain, quantized, count in (
        (nn.Conv2d, QuantConv2d, None),
        (nn.Linear, QuantLinear, None),
        (Add, QuantAdd, adds),
        (Mul, QuantMul, gates),
        (nn.AdaptiveAvgPool2d, QuantAdaptiveAvgPool2d, gates + 1),
    ):
        found = [module for module in modules if isinstance(module, plain)]
        assert len(found) == count or count is None
        assert all(isinstance(module, quantized) for module in found)
