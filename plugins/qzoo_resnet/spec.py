"""What the ResNets declare: inputs, fusions, swaps and weight sources. Imports no torch."""

from __future__ import annotations

from qzoo.spec import Fusion, InputSpec, ModelSpec, Preprocess, QuantSwap, Training, WeightSource

VERSION = "1.0.0"

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DIGITS_MEAN, DIGITS_STD = (0.3, 0.3, 0.3), (0.35, 0.35, 0.35)
"""About those of scikit-learn's digits at 32x32, as its calibration split has them."""

STEM = Fusion("conv1", "bn1", "relu")
SHORTCUT = Fusion("layer*.*.downsample.0", "layer*.*.downsample.1")
BASIC_FUSIONS = (
    STEM,
    Fusion("layer*.*.conv1", "layer*.*.bn1", "layer*.*.relu1"),
    Fusion("layer*.*.conv2", "layer*.*.bn2"),
    SHORTCUT,
)
BOTTLENECK_FUSIONS = (
    STEM,
    Fusion("layer*.*.conv1", "layer*.*.bn1", "layer*.*.relu1"),
    Fusion("layer*.*.conv2", "layer*.*.bn2", "layer*.*.relu2"),
    Fusion("layer*.*.conv3", "layer*.*.bn3"),
    SHORTCUT,
)
"""The last convolution of a block has no activation of its own: the ReLU follows the add."""

SWAPS = (
    QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
    QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
    QuantSwap("qzoo.quant.modules:QuantAdd", path="layer*.*.add"),
    QuantSwap("qzoo.quant.modules:QuantAdaptiveAvgPool2d", path="avgpool"),
)


def _imagenet(depth: int, *, weights: str, sha256: str, resize: int, fusions: tuple[Fusion, ...]) -> ModelSpec:
    """A torchvision ResNet: 1,000 ImageNet classes, 224x224 crops after its weights' own resize."""
    return ModelSpec(
        name=f"resnet{depth}",
        summary=f"ResNet-{depth}, ImageNet-1k, torchvision's weights",
        builder=f"qzoo_resnet.model:resnet{depth}",
        version=VERSION,
        input=InputSpec(
            shape=(3, 224, 224),
            preprocess=Preprocess(resize=resize, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        ),
        num_classes=1000,
        head="fc",
        fusions=fusions,
        swaps=SWAPS,
        weights=(WeightSource(kind="torchvision", ref=f"ResNet{depth}_Weights.{weights}", sha256=sha256),),
        training=Training(optimizer="sgd", lr=0.1, batch_size=256, epochs=90, weight_decay=1e-4, flip=True),
        data="photos",
    )


RESNET20 = ModelSpec(
    name="resnet20",
    summary="ResNet-20 for 32x32 images, trained on scikit-learn's digits; its weights ship with qzoo",
    builder="qzoo_resnet.model:resnet20",
    version=VERSION,
    input=InputSpec(
        shape=(3, 32, 32),
        preprocess=Preprocess(resize=32, crop=32, mean=DIGITS_MEAN, std=DIGITS_STD),
    ),
    num_classes=10,
    head="fc",
    fusions=BASIC_FUSIONS,
    swaps=SWAPS,
    weights=(WeightSource(kind="shipped", ref="resnet20-digits"),),
    training=Training(
        optimizer="sgd", lr=0.1, batch_size=64, epochs=24, weight_decay=5e-4, label_smoothing=0.05, shift=0.125
    ),
    data="digits",
)

SPECS = (
    _imagenet(18, weights="IMAGENET1K_V1", sha256="f37072fd", resize=256, fusions=BASIC_FUSIONS),
    RESNET20,
    _imagenet(34, weights="IMAGENET1K_V1", sha256="b627a593", resize=256, fusions=BASIC_FUSIONS),
    _imagenet(50, weights="IMAGENET1K_V2", sha256="11ad3fa6", resize=232, fusions=BOTTLENECK_FUSIONS),
    _imagenet(101, weights="IMAGENET1K_V2", sha256="cd907fc2", resize=232, fusions=BOTTLENECK_FUSIONS),
    _imagenet(152, weights="IMAGENET1K_V2", sha256="f82ba261", resize=232, fusions=BOTTLENECK_FUSIONS),
)
