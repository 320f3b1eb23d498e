"""Functional forms -> the modules that they compute: F.conv2d with a module's weight is a convolution."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from qzoo.quant.derive.rewrite import Rewriting, argument, names, owner_of, shape_of
from qzoo.quant.derive.trace import VALUE

_CONVS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv1d": (nn.Conv1d,),
    "conv2d": (nn.Conv2d,),
    "conv3d": (nn.Conv3d,),
}
_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def functionalize(rewriting: Rewriting) -> None:
    """Let later readers of a tensor that was changed in place read the result: then each value has one node.

    Likewise where a part of it was changed, `bias[:4].zero_()`.
    """
    order = {node: index for index, node in enumerate(rewriting.graph.nodes)}
    for node in list(rewriting.graph.nodes):
        if node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).startswith("__"):
            changed = node.args[0]
            if not isinstance(changed, fx.Node):
                continue
            _let_read(changed, node, order, node)
            if _is_view(changed) and all(VALUE in one.meta for one in (node, *changed.all_input_nodes)):
                whole: fx.Node = changed.args[0]  # type: ignore[assignment]
                _let_read(whole, rewriting.call(node.next, written, whole, changed.args[1], node), order, node)


def _let_read(old: fx.Node, new: fx.Node, order: dict[fx.Node, int], since: fx.Node) -> None:
    for user in list(old.users):
        if order.get(user, -1) > order[since]:
            user.replace_input_with(old, new)


def _is_view(node: fx.Node) -> bool:
    """Whether a node is a tensor's part by plain indexing; by another tensor it would be a copy."""
    if not names(node, "getitem") or shape_of(node.args[0]) is None:
        return False
    index = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    return all(one is None or one is ... or isinstance(one, int | slice) for one in index)


def written(whole: Tensor, index: Any, part: Tensor) -> Tensor:  # noqa: ANN401 - whatever a tensor can be indexed by
    """A copy of `whole` with `part` at `index`."""
    copied = whole.clone()
    copied[index] = part
    return copied


def to_modules(rewriting: Rewriting) -> None:
    """Call the module whose parameters a batch_norm, linear or convolution is computed with.

    A subclass of PyTorch's becomes the plain class with the same parameters: what else it computes stands in the graph.
    A weight that is computed from parameters alone (standardized, scaled) is computed once and becomes the module's.
    """
    for node in list(rewriting.graph.nodes):
        if names(node, "batch_norm"):
            _batchnorm(rewriting, node)
        elif names(node, "linear"):
            _weighted(rewriting, node, (nn.Linear,), {})
        elif node.op == "call_function" and getattr(node.target, "__name__", "") in _CONVS:
            settings = _convolution(node)
            if settings is not None:
                _weighted(rewriting, node, _CONVS[node.target.__name__], settings)
        elif names(node, "adaptive_avg_pool2d", "avg_pool2d", "mean"):
            _pooling(rewriting, node)


def is_constant(node: object) -> bool:
    """Whether a node is made of parameters and buffers alone."""
    seen: set[fx.Node] = set()
    queue = [node]
    while queue:
        one = queue.pop()
        if not isinstance(one, fx.Node) or one in seen:
            continue
        if one.op in ("placeholder", "call_module"):
            return False
        seen.add(one)
        queue += one.all_input_nodes
    return True


def _batchnorm(rewriting: Rewriting, node: fx.Node) -> None:
    owner = owner_of(node)
    module = rewriting.network.get_submodule(owner)
    kind = next((kind for kind in _NORMS if isinstance(module, kind)), None)
    mean = argument(node, 1, "running_mean")
    own = isinstance(mean, fx.Node) and mean.op == "get_attr" and mean.target == f"{owner}.running_mean"
    if kind is None or not own or argument(node, 5, "training", default=False) is not False:
        return
    _plain(rewriting, owner, module, kind, {})
    rewriting.put(node, owner, (argument(node, 0, "input"),))


def _convolution(node: fx.Node) -> dict[str, Any] | None:
    """The settings of a convolution; None where one of them is computed, or a string."""
    dims = int(node.target.__name__[-2])  # type: ignore[union-attr]
    found = {
        "stride": argument(node, 3, "stride", 1),
        "padding": argument(node, 4, "padding", 0),
        "dilation": argument(node, 5, "dilation", 1),
    }
    spread = {key: (value,) * dims if isinstance(value, int) else value for key, value in found.items()}
    for value in spread.values():
        if isinstance(value, str | fx.Node) or not all(isinstance(one, int) for one in value):
            return None
    return {**{key: tuple(value) for key, value in spread.items()}, "groups": argument(node, 6, "groups", 1)}


def _weighted(
    rewriting: Rewriting, node: fx.Node, kinds: tuple[type[nn.Module], ...], settings: dict[str, Any]
) -> None:
    weight, bias = argument(node, 1, "weight"), argument(node, 2, "bias")
    if not isinstance(weight, fx.Node) or not is_constant(weight) or not is_constant(bias):
        rewriting.leave(node, "convolution" if settings else "linear", "its weight is computed from activations")
        return
    path = weight.target.rpartition(".")[0] if weight.op == "get_attr" else owner_of(node)  # type: ignore[union-attr]
    module = rewriting.network.get_submodule(path)
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if kind is None or _called(rewriting, path):
        path, kind = rewriting.add(owner_of(node), kinds[0].__name__.lower(), nn.Module()), kinds[0]
        module = _unlike(kind, weight)
    with torch.no_grad():
        tensors = {"weight": _value(rewriting, weight), "bias": _value(rewriting, bias)}
    for own, source in (("weight", weight), ("bias", bias)):
        if isinstance(source, fx.Node) and source.target != f"{path}.{own}":
            rewriting.computed.add(f"{path}.{own}")
    _plain(rewriting, path, module, kind, {**settings, **tensors})
    rewriting.put(node, path, (argument(node, 0, "input"),))


def _called(rewriting: Rewriting, path: str) -> bool:
    return any(node.op == "call_module" and node.target == path for node in rewriting.graph.nodes)


def _unlike(kind: type[nn.Module], weight: fx.Node) -> nn.Module:
    """A module of a kind, to be given a weight of this shape."""
    shape = shape_of(weight) or ()
    with torch.device("meta"):
        return kind(shape[1], shape[0]) if kind is nn.Linear else kind(shape[1], shape[0], shape[2:])


def _value(rewriting: Rewriting, node: object) -> nn.Parameter | None:
    """What a constant node gives: a parameter itself, or a new one of what is computed from some."""
    if not isinstance(node, fx.Node):
        return None
    if node.op == "get_attr":
        found: Any = rewriting.network
        for part in str(node.target).split("."):
            found = getattr(found, part)
        return found if isinstance(found, nn.Parameter) else nn.Parameter(found)
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: _value(rewriting, one))
    if node.op == "call_method":
        made = getattr(args[0], str(node.target))(*args[1:], **kwargs)
    else:
        made = node.target(*args, **kwargs)  # type: ignore[operator]
    return nn.Parameter(made) if isinstance(made, Tensor) else made


def _plain(rewriting: Rewriting, path: str, module: nn.Module, kind: type[nn.Module], settings: dict[str, Any]) -> None:
    """Put a module of the plain class `kind` in a module's place, with what it holds and `settings`."""
    plain = kind.__new__(kind)
    plain.__dict__ = {
        key: copy(value) if isinstance(value, dict | set) else value for key, value in vars(module).items()
    }
    for key, value in settings.items():
        if key in ("weight", "bias"):
            plain.register_parameter(key, value)
        else:
            setattr(plain, key, value)
    if isinstance(plain, nn.modules.conv._ConvNd):  # noqa: SLF001 - the common base has no public name
        plain.padding_mode = "zeros"  # another is a call of F.pad before it
        plain.in_channels, plain.out_channels = plain.weight.shape[1] * plain.groups, plain.weight.shape[0]
    rewriting.network.set_submodule(path, plain)


def _pooling(rewriting: Rewriting, node: fx.Node) -> None:
    """A mean over H and W, and the functional poolings, as the modules that runtimes have INT8 kernels for."""
    tensor = argument(node, 0, "input")
    shape = shape_of(tensor)
    if shape is None or len(shape) != 4:
        return
    if names(node, "mean"):
        axes = argument(node, 1, "dim")
        axes = [axes] if isinstance(axes, int) else axes
        if (
            not isinstance(axes, list | tuple)
            or sorted(axis % 4 for axis in axes) != [2, 3]
            or node.kwargs.get("dtype")
        ):
            return
        pooled = _pool(rewriting, node, nn.AdaptiveAvgPool2d(1), tensor)
        if not argument(node, 2, "keepdim", default=False):
            _flattened(rewriting, pooled)
    elif names(node, "adaptive_avg_pool2d"):
        _pool(rewriting, node, nn.AdaptiveAvgPool2d(argument(node, 1, "output_size")), tensor)
    else:
        defaults = (None, None, 0, False, True, None)
        keys = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        pairs = zip(keys, defaults, strict=True)
        settings = [argument(node, place, key, value) for place, (key, value) in enumerate(pairs, 1)]
        if not any(isinstance(one, fx.Node) for one in settings):
            _pool(rewriting, node, nn.AvgPool2d(*settings), tensor)


def _pool(rewriting: Rewriting, node: fx.Node, module: nn.Module, tensor: fx.Node) -> fx.Node:
    return rewriting.put(node, rewriting.add(owner_of(node), "avgpool", module), (tensor,))


def _flattened(rewriting: Rewriting, pooled: fx.Node) -> None:
    """(N, C, 1, 1) -> (N, C), as a mean that keeps no axis gives it."""
    with rewriting.graph.inserting_after(pooled):
        flat = rewriting.graph.call_function(torch.flatten, (pooled, 1))
    flat.meta = dict(pooled.meta)
    pooled.replace_all_uses_with(flat, lambda user: user is not flat)
    pooled.meta[VALUE] = flat.meta[VALUE].unflatten(1, (-1, 1, 1))
