"""Random small networks of convolutions, adds, gates, concatenations, shared modules and in-place activations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_derive import RECIPE, SPEC
from torch import nn
from torch.nn import functional as F

from qzoo.quant.calibrate import calibrate
from qzoo.quant.derive import DerivedNetwork
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import QuantConv2d, quantizers

SHAPE = (4, 6, 6)
SPECS = replace(SPEC, input=replace(SPEC.input, shape=SHAPE))
ACTIVATIONS = {
    "none": lambda x: x,
    "functional": F.relu,
    "in place": lambda x: F.relu(x, inplace=True),
    "method": lambda x: x.relu_(),
    "swish": lambda x: x * torch.sigmoid(x),
}


@dataclass(frozen=True)
class Step:
    """One operation on values made before, counted from the latest."""

    kind: str
    first: int
    second: int
    act: str


STEPS = st.builds(
    Step,
    kind=st.sampled_from(["conv", "conv_bn", "bn_conv", "again", "add", "in-place add", "gate", "concat", "pool"]),
    first=st.integers(0, 3),
    second=st.integers(0, 3),
    act=st.sampled_from(sorted(ACTIVATIONS)),
)


class Random(nn.Module):
    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.stem = nn.Conv2d(4, 4, 1)
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        self.folded: list[str] = []
        for index, step in enumerate(steps):
            key = str(index)
            if step.kind in ("conv", "conv_bn", "bn_conv", "gate"):
                self.convs[key] = nn.Conv2d(4, 4, *(1, 1) if step.kind == "gate" else (3, 1, 1))
            elif step.kind == "concat":
                self.convs[key] = nn.Conv2d(8, 4, 1)
            if step.kind in ("conv_bn", "bn_conv"):
                self.norms[key] = nn.BatchNorm2d(4)
            if step.kind == "conv_bn":
                self.folded.append(f"norms.{key}")
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        made = [self.stem(x)]
        for index, step in enumerate(self.steps):
            key = str(index)
            left, right = (made[-1 - place % len(made)] for place in (step.first, step.second))
            if step.kind == "conv":
                out = self.convs[key](left)
            elif step.kind == "conv_bn":
                out = self.norms[key](self.convs[key](left))
            elif step.kind == "bn_conv":
                out = self.convs[key](self.norms[key](left))
            elif step.kind == "again":
                out = self.stem(left)
            elif step.kind == "add":
                out = left + right
            elif step.kind == "in-place add":
                out = left.clone()
                out.add_(right)
            elif step.kind == "gate":
                out = left * self.convs[key](left.mean((2, 3), keepdim=True)).sigmoid()
            elif step.kind == "concat":
                out = self.convs[key](torch.cat([left, right], 1))
            else:
                out = F.avg_pool2d(left, 3, 1, 1)
            # a copy, since an activation may change its input in place
            made.append(ACTIVATIONS[step.act](out.clone() if step.kind in ("again", "pool") else out))
        return self.fc(F.adaptive_avg_pool2d(made[-1], 1).flatten(1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(steps=st.lists(STEPS, min_size=1, max_size=8))
def test_the_derived_network_is_the_original_with_every_layer_quantized(steps):
    torch.manual_seed(0)
    network = Random(steps)
    batch = torch.randn(6, *SHAPE)
    with torch.no_grad():
        network(batch)
    network.eval()
    made = insert_quantizers(network, SPECS, RECIPE)
    assert isinstance(made, DerivedNetwork)
    with torch.no_grad():
        expected = network(batch)
        torch.testing.assert_close(made(batch), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    called = calls(network, batch)
    for path, module in network.named_modules():
        if path in called and isinstance(module, nn.Conv2d):
            assert isinstance(made.get_submodule(path), QuantConv2d), path
    for path in network.folded:
        if path in called and called[path.replace("norms", "convs")] == 1:
            assert isinstance(made.get_submodule(path), nn.Identity), path
    calibrate(made, [batch], "max", "hash")
    assert all(quantizer.calibrated for quantizer in quantizers(made).values())


def calls(network: nn.Module, batch: torch.Tensor) -> dict[str, int]:
    """How often each module is called for something that reaches the output."""
    found: dict[str, int] = {}
    hooks = []
    for path, module in network.named_modules():

        def note(_module, _args, output, path=path):
            if output.requires_grad:
                output.register_hook(lambda _gradient, path=path: found.__setitem__(path, found.get(path, 0) + 1))

        hooks.append(module.register_forward_hook(note))
    network(batch).sum().backward()
    for hook in hooks:
        hook.remove()
    return found
