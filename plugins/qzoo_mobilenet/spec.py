"""What the MobileNets declare: inputs, fusions, swaps and weight sources. Imports no torch."""

from __future__ import annotations

from qzoo.spec import Fusion, InputSpec, ModelSpec, Preprocess, QuantSwap, Training, WeightSource

VERSION = "1.0.0"

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

STEM_AND_LAST = Fusion("features.*.0", "features.*.1", "features.*.2")
V2_FUSIONS = (
    STEM_AND_LAST,
    Fusion("features.*.conv.*.0", "features.*.conv.*.1", "features.*.conv.*.2"),
    Fusion("features.1.conv.1", "features.1.conv.2"),
    *(Fusion(f"features.{block}.conv.2", f"features.{block}.conv.3") for block in range(2, 18)),
)
"""The first block doesn't expand, so its linear projection stands one place earlier than the others'."""

V3_FUSIONS = (STEM_AND_LAST, Fusion("features.*.block.*.0", "features.*.block.*.1"))
"""Every convolution of a block, whatever activation follows; those of squeeze-and-excitation have no BatchNorm."""

V2_SWAPS = (
    QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
    QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
    QuantSwap("qzoo.quant.modules:QuantAdd", path="features.*.add"),
    QuantSwap("qzoo.quant.modules:QuantAdaptiveAvgPool2d", type="torch.nn.AdaptiveAvgPool2d"),
)
V3_SWAPS = (*V2_SWAPS, QuantSwap("qzoo.quant.modules:QuantMul", path="features.*.block.*.mul"))


def _mobilenet(
    name: str,
    summary: str,
    *,
    weights: str,
    sha256: str,
    resize: int,
    head: str,
    fusions: tuple[Fusion, ...],
    swaps: tuple[QuantSwap, ...],
) -> ModelSpec:
    return ModelSpec(
        name=name,
        summary=f"{summary}, ImageNet-1k, torchvision's weights",
        builder=f"qzoo_mobilenet.model:{name}",
        version=VERSION,
        input=InputSpec(
            shape=(3, 224, 224),
            preprocess=Preprocess(resize=resize, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        ),
        num_classes=1000,
        head=head,
        fusions=fusions,
        swaps=swaps,
        weights=(WeightSource(kind="torchvision", ref=weights, sha256=sha256),),
        training=Training(optimizer="sgd", lr=0.045, batch_size=256, epochs=300, weight_decay=4e-5, flip=True),
        data="photos",
    )


SPECS = (
    _mobilenet(
        "mobilenet_v2",
        "MobileNetV2",
        weights="MobileNet_V2_Weights.IMAGENET1K_V2",
        sha256="7ebf99e0",
        resize=232,
        head="classifier.1",
        fusions=V2_FUSIONS,
        swaps=V2_SWAPS,
    ),
    _mobilenet(
        "mobilenet_v3_large",
        "MobileNetV3-Large",
        weights="MobileNet_V3_Large_Weights.IMAGENET1K_V2",
        sha256="5c1a4163",
        resize=232,
        head="classifier.3",
        fusions=V3_FUSIONS,
        swaps=V3_SWAPS,
    ),
    _mobilenet(
        "mobilenet_v3_small",
        "MobileNetV3-Small",
        weights="MobileNet_V3_Small_Weights.IMAGENET1K_V1",
        sha256="047dcff4",
        resize=256,
        head="classifier.3",
        fusions=V3_FUSIONS,
        swaps=V3_SWAPS,
    ),
)
