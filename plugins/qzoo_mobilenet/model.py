"""torchvision's MobileNets, built of blocks whose residual add and gate are modules.

torchvision takes the block as an argument, so the networks are its own: a state dict loads strictly and gives the same
logits. An add, a multiply and a global average that were operators are modules here, each a point that can be replaced.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large as torchvision_v3_large
from torchvision.models import mobilenet_v3_small as torchvision_v3_small
from torchvision.models import mobilenetv2, mobilenetv3
from torchvision.ops import SqueezeExcitation

from qzoo.quant.modules import Add, Mul


class LinearBottleneck(mobilenetv2.InvertedResidual):  # type: ignore[misc]  # torchvision has no types
    """v2's block: expand, depthwise, project without activation: (N, C, H, W) -> (N, C', H / stride, W / stride)."""

    def __init__(
        self, inp: int, oup: int, stride: int, expand_ratio: int, norm_layer: Callable[..., nn.Module] | None = None
    ) -> None:
        super().__init__(inp, oup, stride, expand_ratio, norm_layer)
        if self.use_res_connect:
            self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """One block; the input is added where the shapes allow it."""
        branch: Tensor = self.conv(x)
        return self.add(x, branch) if self.use_res_connect else branch


class Gate(SqueezeExcitation):  # type: ignore[misc]  # torchvision has no types
    """Squeeze-and-excitation (Hu et al. 2018, arXiv:1709.01507): each channel scaled by what all channels say."""

    def __init__(self, input_channels: int, squeeze_channels: int) -> None:
        super().__init__(input_channels, squeeze_channels, scale_activation=nn.Hardsigmoid)
        self.mul = Mul()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torchvision's name
        """(N, C, H, W) -> the same shape, each channel times its gate in [0, 1]."""
        gated: Tensor = self.mul(input, self._scale(input))
        return gated


class InvertedResidual(mobilenetv3.InvertedResidual):  # type: ignore[misc]  # torchvision has no types
    """v3's block: expand, depthwise, gate, project: (N, C, H, W) -> (N, C', H / stride, W / stride)."""

    def __init__(self, cnf: mobilenetv3.InvertedResidualConfig, norm_layer: Callable[..., nn.Module]) -> None:
        super().__init__(cnf, norm_layer, se_layer=Gate)
        if self.use_res_connect:
            self.add = Add()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torchvision's name
        """One block; the input is added where the shapes allow it."""
        branch: Tensor = self.block(input)
        return self.add(input, branch) if self.use_res_connect else branch


class MobileNetV2(mobilenetv2.MobileNetV2):  # type: ignore[misc]  # torchvision has no types
    """v2, whose global average is a module."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes=num_classes, block=LinearBottleneck)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images, float32 (N, 3, H, W), to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.flatten(self.avgpool(self.features(x))))
        return logits


def mobilenet_v2(num_classes: int) -> nn.Module:
    """3.5 M parameters."""
    return MobileNetV2(num_classes)


def mobilenet_v3_large(num_classes: int) -> nn.Module:
    """5.5 M parameters."""
    return _v3(torchvision_v3_large, num_classes)


def mobilenet_v3_small(num_classes: int) -> nn.Module:
    """2.5 M parameters."""
    return _v3(torchvision_v3_small, num_classes)


def _v3(make: Callable[..., nn.Module], num_classes: int) -> nn.Module:
    return make(num_classes=num_classes, block=InvertedResidual)
