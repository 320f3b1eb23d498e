"""What maxout declares: names and patterns only. Imports no torch."""

from __future__ import annotations

from qzoo.spec import Fusion, InputSpec, ModelSpec, Preprocess, QuantSwap

SPEC = ModelSpec(
    name="maxout",
    summary="the larger of two convolutions, instead of an activation",
    builder="qzoo_example.model:Maxout",
    version="1.0.0",
    input=InputSpec(
        shape=(3, 16, 16),
        preprocess=Preprocess(resize=16, crop=16, mean=(0.3, 0.3, 0.3), std=(0.35, 0.35, 0.35)),
    ),
    num_classes=10,
    head="head",
    fusions=(Fusion("*_conv", "*_bn"),),
    swaps=(
        QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
        QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
        QuantSwap("qzoo_example.model:QuantMaximum", path="maximum"),
    ),
    data="digits",
)
