"""Where the values of a traced graph come from: which kind of layer made them, and where two of them fork."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from qzoo.quant.derive.normalize import is_constant
from qzoo.quant.derive.rewrite import Rewriting, names
from qzoo.quant.derive.trace import VALUE
from qzoo.quant.modules import Matmul

CONVOLUTIONS = (nn.modules.conv._ConvNd,)  # noqa: SLF001 - the common base has no public name
_CONSTANT = frozenset({"constant"})
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ELEMENTWISE = (
    *("sigmoid", "sigmoid_", "hardsigmoid", "tanh", "tanh_", "relu", "relu_", "relu6", "softplus", "silu", "hardtanh"),
    *("clamp", "clamp_", "contiguous", "hardswish", "gelu", "elu", "leaky_relu"),
)
_ARITHMETIC = ("add", "add_", "mul", "mul_", "truediv", "div", "div_", "sub", "sub_", "pow", "neg")


@dataclass(frozen=True)
class Lineage:
    """Of each node: which kinds of layers made its value ("conv", "linear", "matmul", "norm"), back to the nearest.

    BatchNorms, activations, adds, poolings and whatever moves values are passed through. A value that is made of
    parameters alone has the kind "constant".
    """

    rewriting: Rewriting
    kinds: dict[fx.Node, frozenset[str]]
    _order: dict[fx.Node, int]
    _ancestors: dict[fx.Node, int]

    @classmethod
    def of(cls, rewriting: Rewriting) -> Lineage:
        """Read it off a graph, which must not be changed while it is used but for nodes that take others' places."""
        kinds: dict[fx.Node, frozenset[str]] = {}
        order: dict[fx.Node, int] = {}
        ancestors: dict[fx.Node, int] = {}
        for index, node in enumerate(rewriting.graph.nodes):
            order[node] = index
            ancestors[node] = 1 << index
            for one in node.all_input_nodes:
                ancestors[node] |= ancestors[one]
            inputs = [one for one in node.all_input_nodes if kinds[one] != _CONSTANT]
            own = _kind(rewriting, node)
            if own is not None:
                kinds[node] = frozenset({own})
            elif isinstance(node.meta.get(VALUE), int) or (not inputs and node.op != "output"):
                kinds[node] = _CONSTANT  # a size, or what parameters make
            else:
                kinds[node] = frozenset(kind for one in inputs for kind in kinds[one])
        return cls(rewriting, kinds, order, ancestors)

    def take_place(self, old: fx.Node, new: fx.Node) -> None:
        """A node now stands for another."""
        self.kinds[new], self._order[new], self._ancestors[new] = (
            self.kinds[old],
            self._order[old],
            self._ancestors[old],
        )

    def is_constant(self, node: object) -> bool:
        """Whether a value depends on no input."""
        return not isinstance(node, fx.Node) or self.kinds[node] == _CONSTANT

    def longer(self, left: fx.Node, right: fx.Node) -> fx.Node:
        """Which of two values has the longer path from where both fork: more layers, else more nodes; else `right`."""
        fork = (self._ancestors[left] & self._ancestors[right]).bit_length() - 1
        return left if self._length(left, fork) > self._length(right, fork) else right

    def gates_itself(self, left: fx.Node, right: fx.Node) -> bool:
        """Whether one of two factors is an elementwise function of the other: x * sigmoid(x) is an activation."""
        return self._only_elementwise(right, left) or self._only_elementwise(left, right)

    def _length(self, node: fx.Node, fork: int) -> tuple[int, int]:
        lengths: dict[fx.Node, tuple[int, int]] = {}
        for one in sorted(self._between(node, fork), key=self._order.__getitem__):
            before = [lengths[source] for source in one.all_input_nodes if source in lengths]
            layers, nodes = max(before, default=(0, 0))
            weighted = self.kinds[one] <= {"conv", "linear"} and _kind(self.rewriting, one) is not None
            lengths[one] = layers + weighted, nodes + 1
        return lengths.get(node, (0, 0))

    def _between(self, node: fx.Node, fork: int) -> set[fx.Node]:
        """The nodes after the fork that a value depends on, itself included."""
        found: set[fx.Node] = set()
        queue = [node]
        while queue:
            one = queue.pop()
            if one not in found and self._order[one] > fork and self._ancestors[one] >> fork & 1:
                found.add(one)
                queue += one.all_input_nodes
        return found

    def _only_elementwise(self, node: fx.Node, source: fx.Node) -> bool:
        while node is not source:
            inputs = [one for one in node.all_input_nodes if not self.is_constant(one)]
            module = self.rewriting.module_of(node)
            activation = module is not None and type(module).__module__ == "torch.nn.modules.activation"
            if len(inputs) != 1 or not (activation or names(node, *_ELEMENTWISE, *_ARITHMETIC)):
                return False
            node = inputs[0]
        return True


def _kind(rewriting: Rewriting, node: fx.Node) -> str | None:
    """Which kind of layer a node is; None for what passes values on."""
    module = rewriting.module_of(node)
    kind = None if module is None else _kind_of_module(module)
    if names(node, "matmul", "bmm", "einsum", "scaled_dot_product_attention"):
        kind = None if is_constant(node) else "matmul"
    elif names(node, "layer_norm", "group_norm", "rms_norm"):
        kind = "norm"
    elif node.op == "placeholder":
        kind = "input"
    return kind


def _kind_of_module(module: nn.Module) -> str | None:
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, Matmul | nn.MultiheadAttention):
        return "matmul"
    if isinstance(module, _NORMS):
        return "norm"
    # one that couldn't be traced gives what its convolutions do
    return "conv" if any(isinstance(one, CONVOLUTIONS) for one in module.modules()) else None
