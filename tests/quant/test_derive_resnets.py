"""The derived portable graph of a library's ResNet is the hand-written plugin's, node for node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
import timm
import torch
import torchvision
from torch import nn

from qzoo.export import export
from qzoo.graph.edit import INPUT, MODULE, ROLE
from qzoo.quant.calibrate import calibrate
from qzoo.quant.insert import insert_quantizers
from qzoo.spec import ModelSpec, Recipe
from qzoo_resnet import model as networks
from qzoo_resnet import qzoo_models

SPECS: dict[str, ModelSpec] = {spec.name: spec for spec in qzoo_models()}
RECIPE = Recipe(target="onnxruntime", precision="int8")
SHAPE = (3, 64, 64)
RENAMED = {"global_pool.pool": "avgpool"}
"""What timm calls otherwise than torchvision and the plugin."""


def images() -> torch.Tensor:
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))


def portable(network: nn.Module, spec: ModelSpec) -> ir.Model:
    quantized = insert_quantizers(network, spec, RECIPE)
    calibrate(quantized, [images()], "max", "hash")
    return export(quantized, "input", SHAPE, ("logits",))


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def hand_written(request: pytest.FixtureRequest) -> tuple[str, nn.Module, ir.Model]:
    """A name, the plugin's network with statistics of its own, and its portable graph by its declared placement."""
    torch.manual_seed(0)
    network = getattr(networks, request.param)(10)
    with torch.no_grad():
        network(images())  # in training mode: sets running statistics
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return request.param, network.eval(), portable(network, spec_of(request.param))


def spec_of(name: str) -> ModelSpec:
    return replace(SPECS[name], input=replace(SPECS[name].input, shape=SHAPE))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_derived_graph_is_the_declared_one_node_for_node(hand_written, library):
    name, network, expected = hand_written
    theirs = (timm.create_model if library == "timm" else torchvision.models.get_model)(name, num_classes=10)
    theirs.load_state_dict(network.state_dict(), strict=True)
    derived = replace(spec_of(name), fusions=(), swaps=(), placement="derived")
    found = portable(theirs.eval(), derived)
    assert len(list(found.graph)) == len(list(expected.graph))
    assert len(found.graph.initializers) == len(expected.graph.initializers)
    compared = Comparison()
    for one, other in zip(expected.graph.outputs, found.graph.outputs, strict=True):
        compared.values(one, other)
    assert len(compared.nodes) == len(list(expected.graph))


class Comparison:
    """Walks two graphs from their outputs; every node must have one counterpart."""

    def __init__(self) -> None:
        self.nodes: dict[ir.Node, ir.Node] = {}

    def values(self, one: ir.Value | None, other: ir.Value | None) -> None:
        assert (one is None) == (other is None)
        if one is None or other is None:
            return
        first, second = one.producer(), other.producer()
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert list(first.outputs).index(one) == list(second.outputs).index(other)
            self.node(first, second)
        elif one.const_value is None:
            assert one.name == other.name
        else:
            a, b = one.const_value.numpy(), other.const_value.numpy()
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.tobytes() == b.tobytes(), f"{one.name} differs by {np.abs(a - b).max()}"

    def node(self, one: ir.Node, other: ir.Node) -> None:
        if one in self.nodes:
            assert self.nodes[one] is other
            return
        self.nodes[one] = other
        assert (one.domain, one.op_type) == (other.domain, other.op_type), f"{one.name}, {other.name}"
        assert attributes(one) == attributes(other), one.name
        assert annotations(one) == annotations(other), one.name
        for first, second in zip(one.inputs, other.inputs, strict=True):
            self.values(first, second)


def attributes(node: ir.Node) -> dict[str, str]:
    return {name: str(attribute.value) for name, attribute in node.attributes.items()}


def annotations(node: ir.Node) -> dict[str, str]:
    found = {key: value for key, value in node.metadata_props.items() if key in (ROLE, MODULE) or key.startswith(INPUT)}
    for theirs, ours in RENAMED.items():
        found = {key: ",".join(sorted(value.replace(theirs, ours).split(","))) for key, value in found.items()}
    return found
