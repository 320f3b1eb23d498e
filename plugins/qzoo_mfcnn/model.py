"""The network: two branches over a grey image of 60x60, one over the whole of it and one over its patches."""

from __future__ import annotations

from torch import Tensor, nn

from qzoo.quant.modules import Add, Concat, Mul

GRID = 4
"""Patches a side: 24 pixels each, 12 apart, which is 60 in all."""

DROPOUT = 0.2


class Stage(nn.Module):
    """Two 3x3 convolutions without padding and a max-pool: (N, C, H, W) -> (N, width, (H - 4) / 2, (W - 4) / 2)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """One stage; H and W are even."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        pooled: Tensor = self.pool(x)
        return pooled


class SpatialAttention(nn.Module):
    """Weighs places: the mean and the maximum over channels, through a 7x7 convolution and a sigmoid.

    Woo et al. 2018 (CBAM, arXiv:1807.06521), equation 3. (N, C, H, W) -> the same shape.
    """

    def __init__(self) -> None:
        super().__init__()
        self.concat = Concat(dim=1)
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)
        self.sigmoid = nn.Sigmoid()
        self.mul = Mul()

    def forward(self, x: Tensor) -> Tensor:
        """x times its weights (N, 1, H, W)."""
        seen = self.concat(x.mean(1, keepdim=True), x.amax(1, keepdim=True))
        weighed: Tensor = self.mul(x, self.sigmoid(self.conv(seen)))
        return weighed


class ChannelAttention(nn.Module):
    """Weighs channels: their global average and maximum, each through one two-layer network, summed, and a sigmoid.

    Woo et al. 2018 (CBAM, arXiv:1807.06521), equation 2; the layers are 1x1 convolutions without bias.
    (N, C, H, W) -> the same shape.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.maxpool = nn.AdaptiveMaxPool2d(1)
        self.conv1 = nn.Conv2d(channels, hidden, kernel_size=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(hidden, channels, kernel_size=1, bias=False)
        self.add = Add()
        self.sigmoid = nn.Sigmoid()
        self.mul = Mul()

    def forward(self, x: Tensor) -> Tensor:
        """x times its weights (N, C, 1, 1)."""
        summed = self.add(self._excite(self.avgpool(x)), self._excite(self.maxpool(x)))
        weighed: Tensor = self.mul(x, self.sigmoid(summed))
        return weighed

    def _excite(self, pooled: Tensor) -> Tensor:
        excited: Tensor = self.conv2(self.relu(self.conv1(pooled)))
        return excited


class Tile(nn.Module):
    """Folds tiles into the batch, row by row: (N, C, G * h, G * w) -> (N * G * G, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """GRID by GRID tiles of each image, one after another."""
        channels, height, width = x.shape[1], x.shape[2] // GRID, x.shape[3] // GRID
        tiles = x.reshape(-1, channels, GRID, height, GRID, width).permute(0, 2, 4, 1, 3, 5)
        return tiles.reshape(-1, channels, height, width)


class Untile(nn.Module):
    """Concatenates the tiles of each image on channels: (N * G * G, C, h, w) -> (N, G * G * C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        """The inverse of folding them into the batch, tile after tile."""
        return x.reshape(-1, GRID * GRID * x.shape[1], *x.shape[2:])


class Head(nn.Module):
    """Global average, dropout, linear: (N, C, H, W) -> logits (N, num_classes)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(DROPOUT)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.fc(self.dropout(self.flatten(self.avgpool(x))))
        return logits


class GlobalBranch(nn.Module):
    """Three stages over the whole image; the second's output joins the third's: (N, 1, 60, 60) -> (N, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stage1 = Stage(1, 64)
        self.stage2 = Stage(64, 128)
        self.stage3 = Stage(128, 256)
        self.resize = nn.Upsample(size=(4, 4), mode="nearest")
        self.concat = Concat(dim=1)
        self.spatial = SpatialAttention()
        self.channel = ChannelAttention(384, 24)
        self.head = Head(384, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        middle = self.stage2(self.stage1(x))
        joined = self.concat(self.stage3(middle), self.resize(middle))
        logits: Tensor = self.head(self.channel(self.spatial(joined)))
        return logits


class PatchBranch(nn.Module):
    """Sixteen patches of 24x24, 12 apart, through one small network: (N, 1, 60, 60) -> (N, num_classes).

    The two stages run once, over the whole image. Without padding, and with strides that divide the patches' distance,
    what they give for a patch is a window of what they give for the image: 20x20 at every 12th place after the
    convolutions of stage 1, 10x10 at every 6th after its pool, 6x6 at every 6th after those of stage 2, and 3x3 at
    every 3rd at the end, where the windows no longer overlap (Sermanet et al. 2014, OverFeat, arXiv:1312.6229, section
    3.5). From there on the patches are folded into the batch, since attention looks at a whole patch.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stage1 = Stage(1, 64)
        self.stage2 = Stage(64, 128)
        self.tile = Tile()
        self.spatial = SpatialAttention()
        self.channel = ChannelAttention(128, 8)
        self.untile = Untile()
        self.head = Head(GRID * GRID * 128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        patches = self.tile(self.stage2(self.stage1(x)))
        logits: Tensor = self.head(self.untile(self.channel(self.spatial(patches))))
        return logits


class MFCNN(nn.Module):
    """Both branches over one image: (N, 1, 60, 60) float32 -> `global_logits`, `patch_logits`, (N, num_classes) each.

    The decision is the largest of the sum of both softmaxes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.global_branch = GlobalBranch(num_classes)
        self.patch_branch = PatchBranch(num_classes)
        _initialize(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized images to the logits of both heads."""
        return self.global_branch(x), self.patch_branch(x)


def mfcnn(num_classes: int) -> MFCNN:
    """1.45 M parameters, 0.57 GMAC an image."""
    return MFCNN(num_classes)


def _initialize(model: nn.Module) -> None:
    """Convolutions: He et al. 2015 (arXiv:1502.01852), fan out. Linear: Glorot and Bengio 2010, normal, bias 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)
