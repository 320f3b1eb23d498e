"""Every quantized module once or more: its float twin, what it is called with, and the ONNX operators it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qzoo.quant import modules

FACTORS = (1.0, -0.6, 1.9)
"""Of each input of a module: what it is of the same random values, so that each has a range of its own."""


@dataclass(frozen=True)
class Case:
    """One module with its inputs, `shapes`, without the batch; `quantizers` has the one that each goes through."""

    twin: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    operators: tuple[str, ...]
    quantizers: tuple[str, ...] = ("input_quantizer",)
    channel_axis: int | None = None  # of the weight
    arguments: dict[str, object] = field(default_factory=dict)

    def quantized(self, twin: nn.Module, weight_axis: int | None) -> nn.Module:
        return getattr(modules, f"Quant{type(twin).__name__}").from_float(twin, weight_axis)

    def inputs(self, values: Tensor) -> list[Tensor]:
        """Its inputs, from (N, 256) values."""
        sizes = [torch.Size(shape).numel() for shape in self.shapes]
        return [
            (values[:, :size] * factor).reshape(-1, *shape)
            for factor, size, shape in zip(FACTORS, sizes, self.shapes, strict=False)
        ]


L, HW, DHW = (4, 8), (4, 8, 8), (4, 4, 4, 4)
SQUEEZED = ("Squeeze", "Unsqueeze")


def pooling(twin: Callable[[], nn.Module], shape: tuple[int, ...], *operators: str) -> Case:
    return Case(twin, (shape,), operators)


def weighted(
    twin: Callable[[], nn.Module], shape: tuple[int, ...], *operators: str, axis: int = 0, **arguments: object
) -> Case:
    return Case(twin, (shape,), operators, channel_axis=axis, arguments=arguments)


def binary(twin: Callable[[], nn.Module], left: tuple[int, ...], right: tuple[int, ...], operator: str) -> Case:
    return Case(twin, (left, right), (operator,), quantizers=("left_quantizer", "right_quantizer"))


CASES = {
    "max pool 1d": pooling(lambda: nn.MaxPool1d(2), L, "MaxPool"),
    "max pool 2d": pooling(lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), HW, "MaxPool"),
    "max pool 2d, dilated": pooling(lambda: nn.MaxPool2d(2, 1, dilation=2), HW, "MaxPool"),
    "max pool 3d": pooling(lambda: nn.MaxPool3d(2), DHW, "MaxPool"),
    "average pool 1d": pooling(lambda: nn.AvgPool1d(2), L, "AveragePool"),
    "average pool 2d": pooling(lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), HW, "AveragePool"),
    "average pool 3d": pooling(lambda: nn.AvgPool3d(2), DHW, "AveragePool"),
    "adaptive average pool 1d": pooling(lambda: nn.AdaptiveAvgPool1d(2), L, "AveragePool", *SQUEEZED),
    "adaptive average pool 2d": pooling(lambda: nn.AdaptiveAvgPool2d(1), HW, "GlobalAveragePool"),
    "adaptive average pool 2d, (4, 2)": pooling(lambda: nn.AdaptiveAvgPool2d((4, 2)), HW, "AveragePool"),
    "adaptive average pool 3d": pooling(lambda: nn.AdaptiveAvgPool3d(1), DHW, "ReduceMean"),
    "adaptive max pool 1d": pooling(lambda: nn.AdaptiveMaxPool1d(2), L, "MaxPool", *SQUEEZED),
    "adaptive max pool 2d": pooling(lambda: nn.AdaptiveMaxPool2d(1), HW, "ReduceMax"),
    "adaptive max pool 3d": pooling(lambda: nn.AdaptiveMaxPool3d(2), DHW, "MaxPool"),
    "conv 1d": weighted(lambda: nn.Conv1d(4, 6, 3, stride=2, groups=2, bias=False), L, "Conv"),
    "conv 1d, reflected": weighted(lambda: nn.Conv1d(4, 6, 3, padding=1, padding_mode="reflect"), L, "Conv", "Pad"),
    "conv 2d": weighted(lambda: nn.Conv2d(4, 6, 3, padding=1), HW, "Conv"),
    "conv 2d, grouped": weighted(lambda: nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), HW, "Conv"),
    "conv 2d, depthwise": weighted(lambda: nn.Conv2d(4, 4, 3, dilation=2, padding="same", groups=4), HW, "Conv"),
    "conv 2d, circular": weighted(lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), HW, "Conv", "Pad"),
    "conv 2d, replicated": weighted(lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), HW, "Conv", "Pad"),
    "conv 3d": weighted(lambda: nn.Conv3d(4, 6, 3, padding=1), DHW, "Conv"),
    "transposed conv 1d": weighted(lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), L, "ConvTranspose", axis=1),
    "transposed conv 2d": weighted(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), HW, "ConvTranspose", axis=1
    ),
    "transposed conv 2d, grouped": weighted(
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, dilation=2, bias=False), HW, "ConvTranspose", axis=1
    ),
    "transposed conv 2d, sized": weighted(
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), HW, "ConvTranspose", axis=1, output_size=[18, 17]
    ),
    "transposed conv 3d": weighted(lambda: nn.ConvTranspose3d(4, 6, 2, stride=2), DHW, "ConvTranspose", axis=1),
    "linear": weighted(lambda: nn.Linear(8, 5), (8,), "Gemm"),
    "linear, of a sequence": weighted(lambda: nn.Linear(8, 5), L, "Add", "MatMul", "Transpose"),
    "add": Case(modules.Add, (HW, HW), ("Add",), quantizers=("skip_quantizer", "branch_quantizer")),
    "multiply": binary(modules.Mul, HW, HW, "Mul"),
    "multiply by a gate": binary(modules.Mul, HW, (4, 1, 1), "Mul"),
    "matmul": binary(modules.Matmul, (6, 8), (8, 3), "MatMul"),
    "matmul of heads": binary(modules.Matmul, (2, 6, 8), (2, 8, 6), "MatMul"),
    "concat": Case(modules.Concat, ((1, 8, 8), (3, 8, 8), (2, 8, 8)), ("Concat",), quantizers=("input_quantizer",) * 3),
    "concat, last": Case(lambda: modules.Concat(-1), (L, (4, 3)), ("Concat",), quantizers=("input_quantizer",) * 2),
}
"""By a name that says which."""

TWINS = {type(case.twin()).__name__ for case in CASES.values()}


def variants() -> list[tuple[str, int | None]]:
    """Every case, those with a weight per output channel (0) and per tensor (None)."""
    return [
        (name, axis) for name, case in CASES.items() for axis in ((0, None) if case.channel_axis is not None else (0,))
    ]


def random_values(seed: int, batch: int = 3) -> Tensor:
    """(N, 256) standard normal."""
    return torch.randn(batch, 256, generator=torch.Generator().manual_seed(seed))


def made(name: str) -> nn.Module:
    """The float twin of a case, always with the same parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CASES[name].twin()


def weight_amax(weight: Tensor, axis: int | None) -> Tensor:
    """The largest magnitude of each slice along `axis`, shaped to broadcast against the weight; of all if None."""
    if axis is None:
        return weight.detach().abs().max()
    slices = [weight.detach().select(axis, index).abs().max() for index in range(weight.shape[axis])]
    return torch.stack(slices).reshape([-1 if i == axis else 1 for i in range(weight.dim())])
