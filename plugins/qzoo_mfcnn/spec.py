"""What the MFCNN declares: its input, fusions, swaps and recipes. Imports no torch."""

from __future__ import annotations

from qzoo.spec import Fusion, InputSpec, ModelSpec, Preprocess, QuantSwap, Recipe, Role, Training, WeightSource

VERSION = "1.0.0"

DIGITS_MEAN, DIGITS_STD = (0.3,), (0.33,)
"""About those of scikit-learn's digits at 60x60, as its calibration split has them."""

FUSIONS = (
    Fusion("*.stage*.conv1", "*.stage*.bn1", "*.stage*.relu1"),
    Fusion("*.stage*.conv2", "*.stage*.bn2", "*.stage*.relu2"),
)
SWAPS = (
    QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
    QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
    QuantSwap("qzoo.quant.modules:QuantMaxPool2d", type="torch.nn.MaxPool2d"),
    QuantSwap("qzoo.quant.modules:QuantConcat", path="global_branch.concat"),
    QuantSwap("qzoo.quant.modules:QuantAdd", path="*.channel.add"),
    QuantSwap("qzoo_mfcnn.modules:QuantSigmoid", path="*.channel.sigmoid"),
    QuantSwap("qzoo.quant.modules:QuantMul", path="*.channel.mul"),
)
KEEP_FLOAT = ("*.spatial.*",)
"""All of spatial attention."""
FIRST = ("*.stage1.conv1",)
"""The convolutions that read the image: in float as this network's users had them; `--autotune` tries them in INT8."""

BOTH_SUMMANDS: tuple[Role, ...] = ("input", "weight", "skip", "branch")
ONE_SUMMAND: tuple[Role, ...] = ("input", "weight", "skip")
"""TensorRT adds the other one in the epilogue of the convolution that made it."""

RECIPES = (
    Recipe(target="onnxruntime", precision="int8", roles=BOTH_SUMMANDS, float_modules=FIRST),
    Recipe(target="openvino", precision="int8", roles=BOTH_SUMMANDS, float_modules=FIRST),
    Recipe(target="tensorrt", precision="int8", roles=ONE_SUMMAND, float_modules=FIRST),
    Recipe(target="tensorrt-rtx", precision="int8", roles=ONE_SUMMAND, float_modules=FIRST),
)

MFCNN = ModelSpec(
    name="mfcnn",
    summary="Multi-feature-fusion CNN for grey 60x60 images, trained on scikit-learn's digits; weights ship with qzoo",
    builder="qzoo_mfcnn.model:mfcnn",
    version=VERSION,
    input=InputSpec(
        shape=(1, 60, 60),
        preprocess=Preprocess(mode="L", resize=60, crop=60, mean=DIGITS_MEAN, std=DIGITS_STD),
    ),
    num_classes=10,
    head="global_branch.head.fc",
    outputs=("global_logits", "patch_logits"),
    decision="softmax-sum",
    fusions=FUSIONS,
    swaps=SWAPS,
    keep_float=KEEP_FLOAT,
    weights=(WeightSource(kind="shipped", ref="mfcnn-digits"),),
    recipes=RECIPES,
    training=Training(
        optimizer="adamw", lr=3e-3, batch_size=64, epochs=12, label_smoothing=0.05, shift=0.1, rotate=10, zoom=0.1
    ),
    data="digits",
)
