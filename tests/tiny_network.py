"""A network small enough to train in a second, as a plugin in a folder."""

from __future__ import annotations

from pathlib import Path

TINY = """
import qzoo


@qzoo.hookimpl
def qzoo_models():
    for name in ("tiny", "twin", "bare", "stem-in-float"):
        yield qzoo.ModelSpec(
            name=name,
            summary="one residual block",
            builder="tiny_plugin.model:Tiny",
            version="1.0.0",
            input=qzoo.InputSpec(
                shape=(3, 16, 16),
                preprocess=qzoo.Preprocess(resize=16, crop=16, mean=(0.3, 0.3, 0.3), std=(0.35, 0.35, 0.35)),
            ),
            num_classes=10,
            head="head",
            fusions=(qzoo.Fusion("stem", "stem_bn", "relu1"), qzoo.Fusion("conv", "bn")),
            swaps=(
                qzoo.QuantSwap("qzoo.quant.modules:QuantConv2d", type="torch.nn.Conv2d"),
                qzoo.QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),
                qzoo.QuantSwap("qzoo.quant.modules:QuantAdd", path="add"),
            ),
            training=qzoo.Training(lr=0.01, batch_size=64, epochs=3, shift=0.06),
            keep_float=("*",) if name == "bare" else (),
            recipes=(qzoo.Recipe(target="onnxruntime", precision="int8", float_modules=("stem",)),)
            if name == "stem-in-float"
            else (),
            data="digits",
        )
"""
MODEL = """
from torch import nn

from qzoo.quant.modules import Add


class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.add = Add()
        self.relu2 = nn.ReLU()
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16 * 16, num_classes)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.relu1(self.stem_bn(self.stem(x)))
        x = self.relu2(self.add(x, self.bn(self.conv(x))))
        return self.head(self.drop(self.pool(x).flatten(1)))
"""


def write_tiny(folder: Path) -> Path:
    """Write the plugin below `folder`, which --plugin-dir then takes."""
    package = folder / "tiny_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TINY)
    (package / "model.py").write_text(MODEL)
    return folder
