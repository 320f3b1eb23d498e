"""The networks. A state dict of torchvision's resnet18 to resnet152 loads strictly and gives the same logits.

Unlike torchvision's, every ReLU is a module of its own and the residual add is a module, so that each is a point that
can be fused or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qzoo.quant.modules import Add


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual add: (N, in_channels, H, W) -> (N, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.add = Add()
        self.relu_out = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """One block; the skip path is projected where the shape changes."""
        skip = x if self.downsample is None else self.downsample(x)
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        out: Tensor = self.relu_out(self.add(skip, branch))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a residual add: (N, C, H, W) -> (N, 4 * width, H / stride, W / stride).

    The stride sits on the 3x3 convolution, as in torchvision ("ResNet v1.5").
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = _conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.add = Add()
        self.relu_out = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """One block; the skip path is projected where the shape changes."""
        skip = x if self.downsample is None else self.downsample(x)
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        out: Tensor = self.relu_out(self.add(skip, branch))
        return out


class ResNet(nn.Module):
    """Stem, stages `layer1`, `layer2`, ... of blocks, global average, linear head: (N, 3, H, W) -> (N, num_classes).

    `blocks[i]` blocks of width `widths[i]` make stage i + 1; every stage but the first halves H and W.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        *,
        blocks: Sequence[int],
        widths: Sequence[int],
        conv1: nn.Conv2d,
        maxpool: nn.Module,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = conv1
        self.bn1 = nn.BatchNorm2d(conv1.out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = maxpool
        self.stages = [f"layer{number}" for number in range(1, len(blocks) + 1)]
        channels = conv1.out_channels
        for stage, count, width in zip(self.stages, blocks, widths, strict=True):
            self.add_module(stage, _stage(block, channels, width, count, stride=1 if stage == "layer1" else 2))
            channels = width * block.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images, float32 (N, 3, H, W), to logits (N, num_classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def resnet18(num_classes: int) -> ResNet:
    """18 layers, 11.7 M parameters."""
    return _imagenet_resnet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet34(num_classes: int) -> ResNet:
    """34 layers, 21.8 M parameters."""
    return _imagenet_resnet(BasicBlock, (3, 4, 6, 3), num_classes)


def resnet50(num_classes: int) -> ResNet:
    """50 layers, 25.6 M parameters."""
    return _imagenet_resnet(Bottleneck, (3, 4, 6, 3), num_classes)


def resnet101(num_classes: int) -> ResNet:
    """101 layers, 44.5 M parameters."""
    return _imagenet_resnet(Bottleneck, (3, 4, 23, 3), num_classes)


def resnet152(num_classes: int) -> ResNet:
    """152 layers, 60.2 M parameters."""
    return _imagenet_resnet(Bottleneck, (3, 8, 36, 3), num_classes)


def resnet20(num_classes: int) -> ResNet:
    """20 layers, 0.27 M parameters, for 32x32 images (He et al. 2015, section 4.2).

    Where the shape changes, the shortcut is a 1x1 convolution (the paper's option B), not the parameter-free option A
    of its CIFAR networks, so that it is quantized like any other convolution.
    """
    stem = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
    return ResNet(
        BasicBlock,
        blocks=(3, 3, 3),
        widths=(16, 32, 64),
        conv1=stem,
        maxpool=nn.Identity(),
        num_classes=num_classes,
    )


def _imagenet_resnet(block: type[BasicBlock | Bottleneck], blocks: Sequence[int], num_classes: int) -> ResNet:
    stem = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
    maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return ResNet(
        block, blocks=blocks, widths=(64, 128, 256, 512), conv1=stem, maxpool=maxpool, num_classes=num_classes
    )


def _stage(block: type[BasicBlock | Bottleneck], channels: int, width: int, count: int, stride: int) -> nn.Sequential:
    out = width * block.expansion
    downsample = None
    if stride != 1 or channels != out:
        downsample = nn.Sequential(_conv1x1(channels, out, stride), nn.BatchNorm2d(out))
    first = block(channels, width, stride, downsample)
    return nn.Sequential(first, *(block(out, width, 1, None) for _ in range(count - 1)))


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def _initialize(model: nn.Module) -> None:
    """He et al. 2015 (arXiv:1502.01852), fan out, as in torchvision. A new BatchNorm has gain 1 and bias 0 already."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
