"""A network that can't be exported: the error names the operator, its module and its line, and the way around."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from qzoo.errors import ExportError
from qzoo.export import export
from qzoo.quant.derive import derive

HERE = Path(__file__)


class Bessel(nn.Module):
    """An operator that ONNX doesn't have."""

    def forward(self, x):
        return torch.special.bessel_j0(x)


class Branching(nn.Module):
    """A branch on a value."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class Raising(nn.Module):
    """An error of its own, that says nothing."""

    def forward(self, x):
        raise RuntimeError


def within(inner: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 2, 1), nn.Sequential(nn.ReLU(), inner))


def line_of(text: str) -> str:
    """What a message says of the only line of this file that is this text."""
    (number,) = [at for at, line in enumerate(HERE.read_text().splitlines(), 1) if line == f"        {text}"]
    return re.escape(f"`{text}` ({HERE.name}:{number})")


LACKING = (
    rf"^torch\.onnx can't export prims\.bessel_j0\.default in 1\.1, {line_of('return torch.special.bessel_j0(x)')}: "
    r"ONNX has no such operator; in the builder of a plugin, replace 1\.1 by a module that computes it of others$"
)
BRANCH = (
    rf"^torch\.onnx can't export 1\.1, {line_of('return x if x.sum() > 0 else -x')}: a graph has no branches on values "
    r"\(.*data-dependent.*\); .* replace 1\.1 by .* both sides and picks with torch\.where$"
)
ERROR = rf"^torch\.onnx can't export 1\.1, {line_of('raise RuntimeError')}: RuntimeError; .* replace 1\.1 by"


@pytest.mark.parametrize(
    ("inner", "says"),
    [(Bessel(), LACKING), (Branching(), BRANCH), (Raising(), ERROR)],
    ids=["operator", "branch", "error"],
)
def test_the_operator_its_module_and_its_line_are_named(inner, says):
    with pytest.raises(ExportError, match=says) as error:
        export(within(inner), "input", (2, 5, 5), ("logits",))
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ("network", "what"), [(Branching(), ""), (Bessel(), r"prims\.bessel_j0\.default in ")], ids=["branch", "operator"]
)
def test_what_the_network_computes_itself_is_said_to_be_its_own(network, what):
    says = rf"can't export {what}the network's own forward, `return .*; in the builder of a plugin, replace it by"
    with pytest.raises(ExportError, match=says):
        export(network, "input", (2, 5, 5), ("logits",))


class Torchvisions(nn.Module):
    """What fails is torchvision's: it refuses a probability of 2."""

    def forward(self, x):
        return torchvision.ops.stochastic_depth(x, 2.0, "batch")


def test_a_line_of_a_library_whose_name_begins_like_torchs_is_the_networks():
    with pytest.raises(ExportError, match=r"can't export 1\.1, `.*` \(stochastic_depth\.py:\d+\)"):
        export(within(Torchvisions()), "input", (2, 5, 5), ("logits",))


@pytest.mark.parametrize(("inner", "line"), [(Bessel(), "return torch.special.bessel_j0(x)")], ids=["operator"])
def test_in_a_derived_network_the_module_and_the_line_are_those_it_was_written_with(inner, line):
    network = derive(within(inner).eval(), (2, 5, 5), "net").network
    with pytest.raises(ExportError, match=rf"prims\.bessel_j0\.default in 1\.1, {line_of(line)}: ONNX has no such"):
        export(network, "input", (2, 5, 5), ("logits",))
