from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from qzoo.quant.fuse import fold_batchnorm
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import Add, QuantAdaptiveAvgPool2d, QuantAdd, QuantConv2d, QuantLinear
from qzoo.spec import ModelSpec, Recipe
from qzoo_resnet import model as networks
from qzoo_resnet import qzoo_models

SPECS: dict[str, ModelSpec] = {spec.name: spec for spec in qzoo_models()}
IMAGENET = [name for name in SPECS if name != "resnet20"]


def build(name: str) -> nn.Module:
    return getattr(networks, name)(SPECS[name].num_classes)


@pytest.mark.parametrize("name", IMAGENET)
def test_parameter_names_and_shapes_are_torchvisions(name: str):
    with torch.device("meta"):
        ours, theirs = build(name), torchvision.models.get_model(name)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize("name", IMAGENET)
def test_torchvisions_state_dict_gives_torchvisions_logits(name: str):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(2, 4)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    with torch.device("meta"):
        ours = build(name).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-6)


def test_initialization_is_torchvisions():
    torch.manual_seed(7)
    theirs = torchvision.models.resnet18().state_dict()
    torch.manual_seed(7)
    ours = build("resnet18").state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_resnet20_has_twenty_layers_and_the_papers_stages():
    model = build("resnet20").eval()
    main_path = [m for p, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "downsample" not in p]
    shapes = {}
    for stage in ("layer1", "layer2", "layer3"):
        model.get_submodule(stage).register_forward_hook(
            lambda _module, _inputs, output, stage=stage: shapes.__setitem__(stage, tuple(output.shape[1:]))
        )
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert len(main_path) == 20
    assert shapes == {"layer1": (16, 32, 32), "layer2": (32, 16, 16), "layer3": (64, 8, 8)}


@pytest.mark.parametrize("name", SPECS)
def test_every_batchnorm_belongs_to_exactly_one_fusion(name: str):
    with torch.device("meta"):
        modules = dict(build(name).named_modules())
    bound = [bn for fusion in SPECS[name].fusions for _, bn, _ in fusion.bind(modules)]
    assert sorted(bound) == sorted(path for path, module in modules.items() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("name", SPECS)
def test_every_relu_before_an_add_is_fused_and_none_after_it(name: str):
    with torch.device("meta"):
        modules = dict(build(name).named_modules())
    fused = {act for fusion in SPECS[name].fusions for _, _, act in fusion.bind(modules) if act}
    relus = {path for path, module in modules.items() if isinstance(module, nn.ReLU)}
    assert relus - fused == {path for path in relus if path.endswith("relu_out")}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
def test_folding_batchnorm_keeps_the_logits(name: str):
    torch.manual_seed(1)
    model = build(name).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.double)
    with torch.inference_mode():
        expected = model(images)
        fold_batchnorm(model, SPECS[name].fusions)
        torch.testing.assert_close(model(images), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
def test_swaps_reach_every_conv_linear_add_and_the_pool(name: str):
    recipe = Recipe(target="onnxruntime/any", precision="int8")
    modules = list(insert_quantizers(build(name), SPECS[name], recipe).modules())
    for plain, quantized in (
        (nn.Conv2d, QuantConv2d),
        (nn.Linear, QuantLinear),
        (Add, QuantAdd),
        (nn.AdaptiveAvgPool2d, QuantAdaptiveAvgPool2d),
    ):
        found = [module for module in modules if isinstance(module, plain)]
        assert found
        assert all(isinstance(module, quantized) for module in found)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20"])
def test_add_gets_the_skip_first(name: str):
    model = build(name).eval()
    block = model.get_submodule("layer1.1")
    seen: dict[str, torch.Tensor] = {}
    block.register_forward_pre_hook(lambda _m, args: seen.__setitem__("input", args[0].clone()))
    block.get_submodule("add").register_forward_pre_hook(lambda _m, args: seen.__setitem__("skip", args[0].clone()))
    with torch.inference_mode():
        model(torch.randn(1, 3, 32, 32))
    assert torch.equal(seen["skip"], seen["input"])
