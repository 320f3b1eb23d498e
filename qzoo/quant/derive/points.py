"""Which operators of a traced graph become points that are quantized: adds, gates, concatenations, matrix products."""

from __future__ import annotations

from torch import fx, nn

from qzoo.quant.derive.lineage import CONVOLUTIONS, Lineage
from qzoo.quant.derive.rewrite import Rewriting, argument, names, owner_of, shape_of
from qzoo.quant.derive.trace import BATCH
from qzoo.quant.modules import Add, Concat, Matmul, Mul

_INTEGER = (
    *CONVOLUTIONS,
    nn.Linear,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    Add,
    Mul,
    Concat,
    Matmul,
    nn.MultiheadAttention,
)
_MOVES = (nn.MaxPool2d, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Upsample, nn.ZeroPad2d)
_MOVING = (
    *("flatten", "view", "reshape", "permute", "transpose", "contiguous", "getitem", "split", "chunk", "unbind"),
    *("pad", "interpolate", "max_pool2d", "squeeze", "unsqueeze", "unflatten", "channel_shuffle"),
)


_PENDING = ("add", "cat", "matmul")
"""What may still become a point."""


def make_points(rewriting: Rewriting) -> None:
    """Give each operator that is quantized a module of its own; record why another stays in float."""
    lineage = Lineage.of(rewriting)
    for node in list(rewriting.graph.nodes):
        if lineage.is_constant(node):
            continue
        if names(node, "add", "add_", "iadd"):
            _add(rewriting, lineage, node)
        elif names(node, "mul", "mul_", "imul", "multiply"):
            _mul(rewriting, lineage, node)
        elif names(node, "cat", "concat", "concatenate"):
            _concat(rewriting, lineage, node)
        elif names(node, "matmul", "bmm"):
            _matmul(rewriting, lineage, node)
        elif names(node, "einsum"):
            rewriting.leave(node, "matmul", "an einsum is one operator; write it as matmul to have it quantized")
        elif names(node, "multi_head_attention_forward"):
            rewriting.leave(node, "matmul", "PyTorch's own attention function is one operator")


def _add(rewriting: Rewriting, lineage: Lineage, node: fx.Node) -> None:
    pair = _two(lineage, node)
    if pair is None or node.kwargs.get("alpha", 1) != 1:
        return
    left, right = pair
    if shape_of(left) != shape_of(right):
        if _from_convolution(lineage, left) and _from_convolution(lineage, right):
            rewriting.leave(node, "add", f"it adds tensors of two shapes, {shape_of(left)} and {shape_of(right)}")
        return
    branch = lineage.longer(left, right)
    skip = left if branch is right else right
    if not _from_convolution(lineage, branch):
        rewriting.leave(node, "add", f"its branch comes from {_makers(lineage, branch)}, not from a convolution")
        return
    _replace(rewriting, lineage, node, "add", Add(), (skip, branch))


def _mul(rewriting: Rewriting, lineage: Lineage, node: fx.Node) -> None:
    pair = _two(lineage, node)
    if pair is None or lineage.gates_itself(*pair):
        return
    if not any(_from_convolution(lineage, one) for one in pair):
        made = " and ".join(dict.fromkeys(_makers(lineage, one) for one in pair))
        rewriting.leave(node, "mul", f"it multiplies what comes from {made}")
        return
    _replace(rewriting, lineage, node, "mul", Mul(), pair)


def _concat(rewriting: Rewriting, lineage: Lineage, node: fx.Node) -> None:
    tensors, dim = argument(node, 0, "tensors"), argument(node, 1, "dim", 0)
    shapes = [shape_of(one) for one in tensors] if isinstance(tensors, list | tuple) else [None]
    if None in shapes or not isinstance(dim, int):
        return
    if any(lineage.is_constant(one) for one in tensors):
        rewriting.leave(node, "concat", "it joins a constant, such as a class token")
    elif not any(_from_convolution(lineage, one) for one in tensors):
        rewriting.leave(node, "concat", f"it joins what comes from {_makers(lineage, tensors[0])}")
    elif (shapes[0] or (BATCH,))[dim] % BATCH == 0:
        rewriting.leave(node, "concat", "it joins along the batch")
    elif not read_as_integers(rewriting, node, _PENDING):
        rewriting.leave(node, "concat", "nothing that computes in integers reads it")
    else:
        _replace(rewriting, lineage, node, "concat", Concat(dim), tuple(tensors))


def _matmul(rewriting: Rewriting, lineage: Lineage, node: fx.Node) -> None:
    pair = _two(lineage, node)
    if pair is None:
        rewriting.leave(node, "matmul", "one of its matrices is a constant")
        return
    _replace(rewriting, lineage, node, "matmul", Matmul(), pair)


def _two(lineage: Lineage, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The two activations that an operator takes; None where one is a number or a constant."""
    left, right = argument(node, 0, "input"), argument(node, 1, "other", argument(node, 1, "mat2"))
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return None
    if shape_of(left) is None or shape_of(right) is None or any(map(lineage.is_constant, (left, right))):
        return None
    return left, right


def _replace(
    rewriting: Rewriting, lineage: Lineage, node: fx.Node, name: str, module: nn.Module, args: tuple[fx.Node, ...]
) -> None:
    made = rewriting.put(node, rewriting.add(owner_of(node), name, module), args)
    lineage.take_place(node, made)


def _from_convolution(lineage: Lineage, node: fx.Node) -> bool:
    return "conv" in lineage.kinds[node]


def _makers(lineage: Lineage, node: fx.Node) -> str:
    words = {
        "linear": "a linear layer",
        "matmul": "a matrix product",
        "norm": "a normalization",
        "input": "the network's input",
        "conv": "a convolution",
        "constant": "a constant",
    }
    return ", ".join(words[kind] for kind in sorted(lineage.kinds[node])) or "no layer"


def read_as_integers(rewriting: Rewriting, node: fx.Node, pending: tuple[str, ...] = ()) -> bool:
    """Whether something that computes in integers reads a value, perhaps moved; operators of `pending` names too."""
    queue, seen = list(node.users), set[fx.Node]()
    while queue:
        user = queue.pop()
        if user in seen:
            continue
        seen.add(user)
        module = rewriting.module_of(user)
        if isinstance(module, _INTEGER) or names(user, *pending):
            return True
        if isinstance(module, _MOVES) or names(user, *_MOVING):
            queue += user.users
    return False
