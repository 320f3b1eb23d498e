"""A plugin whose networks build in a second or two: `small`, and `small-unfused`, a fusion of which matches nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qzoo.hookspecs import hookimpl
from qzoo.spec import Fusion, InputSpec, ModelSpec, Preprocess, QuantSwap

if TYPE_CHECKING:
    from torch import nn

SMALL = ModelSpec(
    name="small",
    summary="one convolution on scikit-learn's digits",
    builder="small_net:network",
    version="1",
    input=InputSpec(shape=(1, 8, 8), preprocess=Preprocess(mode="L", resize=8, crop=8, mean=(0.3,), std=(0.35,))),
    num_classes=10,
    head="fc",
    fusions=(Fusion("conv", "bn", "relu"),),
    swaps=(
        QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
        QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
    ),
    data="digits",
)
UNFUSED = replace(SMALL, name="small-unfused", fusions=(*SMALL.fusions, Fusion("stage*.conv", "stage*.bn")))


@hookimpl
def qzoo_models():
    yield from (SMALL, UNFUSED)


def network(num_classes: int) -> nn.Module:
    from collections import OrderedDict

    from torch import nn

    layers = {
        "conv": nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        "bn": nn.BatchNorm2d(8),
        "relu": nn.ReLU(),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(8 * 4 * 4, num_classes),
    }
    return nn.Sequential(OrderedDict(layers))
