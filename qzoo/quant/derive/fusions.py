"""Which BatchNorms of a derived network follow a layer directly, and can be folded into it."""

from __future__ import annotations

from collections import Counter

from torch import fx, nn

from qzoo.quant.derive.rewrite import Rewriting, argument, names
from qzoo.spec import Fusion

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d)


def find_fusions(rewriting: Rewriting) -> tuple[Fusion, ...]:
    """Each convolution or linear layer whose only reader is a BatchNorm, with the activation module after that.

    Layers and BatchNorms that are called twice are left out. Every other BatchNorm is recorded as left in float.
    """
    calls = Counter(str(node.target) for node in rewriting.graph.nodes if node.op == "call_module")
    found = []
    for node in rewriting.graph.nodes:
        if not isinstance(rewriting.module_of(node), nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - no public name
            continue
        layer = _layer_before(rewriting, node)
        if layer is None or calls[str(layer.target)] > 1 or calls[str(node.target)] > 1:
            rewriting.leave(node, "batchnorm", "no layer that is its own comes directly before it")
            continue
        found.append(Fusion(str(layer.target), str(node.target), _activation_after(rewriting, node)))
    return tuple(found)


def _layer_before(rewriting: Rewriting, norm: fx.Node) -> fx.Node | None:
    source: fx.Node = argument(norm, 0, "input")
    reader = norm
    while isinstance(rewriting.module_of(source), _TRANSPARENT) and set(source.users) == {reader}:
        source, reader = argument(source, 0, "input"), source
    module, own = rewriting.module_of(source), rewriting.module_of(norm)
    if isinstance(module, _CONVOLUTIONS) and set(source.users) == {reader}:
        return source
    # (N, L, C) -> (N * L, C) for a BatchNorm over C, whose result then has the shape of what came in
    flat = names(source, "flatten") and argument(source, 1, "start_dim") == 0 and argument(source, 2, "end_dim") == 1
    if flat and isinstance(own, nn.BatchNorm1d):
        source, reader = source.args[0], source  # type: ignore[assignment]
        module = rewriting.module_of(source)
    if isinstance(module, nn.Linear) and isinstance(own, nn.BatchNorm1d):
        others = [user for user in source.users if user is not reader and not _takes_its_shape(user, source)]
        if not others and len(norm.meta["qzoo_value"].shape) == 2:
            return source
    return None


def _takes_its_shape(user: fx.Node, source: fx.Node) -> bool:
    if names(user, "size"):
        return True
    return names(user, "reshape_as", "view_as") and user.args[0] is not source and user.args[1] is source


def _activation_after(rewriting: Rewriting, norm: fx.Node) -> str | None:
    node = norm
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = rewriting.module_of(node)
        if module is not None and type(module).__module__ == "torch.nn.modules.activation":
            return str(node.target)
        if not isinstance(module, _TRANSPARENT):
            return None
    return None
