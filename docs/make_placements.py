"""Draw where Q/DQ pairs stand, for docs/placement.md: `python docs/make_placements.py`.

Each drawing is a small network's portable graph as qzoo exports it, a line for each operator. `x [skip 3]` is an input
that comes through a pair: its quantizer's role, and the number of its scale; the same number is the same scale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from qzoo.export import export
from qzoo.graph.edit import DEQUANTIZE, QUANTIZE, ROLE, constant
from qzoo.quant.calibrate import calibrate
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import Add, Concat, Matmul, Mul
from qzoo.spec import InputSpec, ModelSpec, Preprocess, Recipe

PAGE = Path(__file__).with_name("placement.md")
SHAPE = (3, 8, 8)


class Residual(nn.Module):
    """An add."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.add, self.conv3 = nn.ReLU(), Add(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A block, and what reads it."""
        skip = self.relu(self.conv1(x))
        return self.conv3(self.add(skip, self.conv2(skip)))  # type: ignore[no-any-return]


class Branches(nn.Module):
    """A concat."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.concat, self.conv3 = Concat(1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Two branches side by side, and what reads them."""
        return self.conv3(self.concat(self.conv1(x), self.conv2(x)))  # type: ignore[no-any-return]


class Gated(nn.Module):
    """A multiply, and a global pooling: squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool, self.squeeze = nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)
        self.gate, self.mul, self.conv2 = nn.Sigmoid(), Mul(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Each channel times its gate."""
        x = self.conv1(x)
        return self.conv2(self.mul(x, self.gate(self.squeeze(self.pool(x)))))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """softmax(q k^T) v."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 4)
        self.scores, self.mixed, self.project = Matmul(), Matmul(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        """One head; the rows of an image are its tokens."""
        weights = torch.softmax(self.scores(self.query(x), self.key(x).transpose(-2, -1)), -1)
        return self.project(self.mixed(weights, self.value(x)))  # type: ignore[no-any-return]


class Heads(nn.Module):
    """Two heads of a detector on one feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        self.classes, self.boxes = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores and boxes at each place."""
        x = self.relu(self.features(x))
        return self.classes(x), self.boxes(x)


NETWORKS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "add": (Residual, ("out",)),
    "concat": (Branches, ("out",)),
    "multiply": (Gated, ("out",)),
    "attention": (Attention, ("out",)),
    "heads": (Heads, ("classes", "boxes")),
}


def portable(make: type[nn.Module], outputs: tuple[str, ...]) -> ir.Model:
    """The network's portable graph, its placement derived, calibrated on noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, images = make().eval(), torch.randn(4, *SHAPE)
    how = Preprocess(resize=8, crop=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = ModelSpec(
        name="drawn",
        summary="",
        builder="none:none",
        version="0",
        input=InputSpec(shape=SHAPE, preprocess=how),
        num_classes=4,
        head="",
        placement="derived",
    )
    quantized = insert_quantizers(network, spec, Recipe(target="onnxruntime", precision="int8"))
    calibrate(quantized, [images], "max", "")
    return export(quantized, "x", SHAPE, outputs)


def drawing(graph: ir.Graph) -> str:
    """A line for each operator, in order: its name, and its inputs with their pairs."""
    names: dict[ir.Value | None, str] = {value: str(value.name) for value in graph.inputs}
    scales: dict[bytes, int] = {}
    counts: dict[str, int] = {}
    lines = []
    for node in graph:
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            continue
        shown = [text for value in node.inputs if (text := _shown(value, names, scales))]
        if shown == ["int8 weight"] or (node.op_type == "Add" and len(shown) == 1):
            names[node.outputs[0]] = shown[0]  # a weight that is transposed, a bias that is added
            continue
        kind = node.op_type.lower()
        counts[kind] = counts.get(kind, 0) + 1
        names[node.outputs[0]] = f"{kind}{counts[kind]}"
        lines.append((names[node.outputs[0]], f"{node.op_type}({', '.join(shown)})"))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)} = {text}" for name, text in lines)


def _shown(value: ir.Value | None, names: dict[ir.Value | None, str], scales: dict[bytes, int]) -> str:
    """An input; nothing for a bias or a shape."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != DEQUANTIZE:
        return names.get(value, "")
    maker = node.inputs[0].producer() if node.inputs[0] else None
    if maker is None:
        return "int8 weight"
    scale = constant(node.inputs[1])
    key = b"" if scale is None else scale.tobytes()
    number = scales.setdefault(key, len(scales) + 1)
    roles = "+".join(dict.fromkeys(node.metadata_props[ROLE].split(",")))
    return f"{names[maker.inputs[0]]} [{roles} {number}]"


def drawings() -> dict[str, str]:
    """Every drawing, by its name."""
    return {name: drawing(portable(*network).graph) for name, network in NETWORKS.items()}


def filled(page: str, drawn: dict[str, str]) -> str:
    """The page with its drawings put in anew: the block after each `<!-- name -->`."""
    for name, text in drawn.items():
        block = f"<!-- {name} -->\n```text\n{text}\n```"
        page = re.sub(rf"<!-- {name} -->\n```text\n.*?```", lambda _, block=block: block, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.write("\n\n".join(drawings().values()) + "\n")
    else:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), drawings()), encoding="utf-8")
