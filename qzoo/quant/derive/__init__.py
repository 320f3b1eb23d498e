"""Fusions and quantized modules of a network, derived from its traced graph: for specs with placement="derived".

The network that a builder gives is the library's own. Here it is traced (trace), functional forms become the modules
that they compute (normalize), attention is spelled out (attention), operators become points (points), and BatchNorms
are paired with the layers before them (fusions). What comes out has the paths and the state dict of what went in, and
computes the same, which is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from qzoo.errors import SpecError
from qzoo.quant.derive.attention import spell_out_attention
from qzoo.quant.derive.fusions import find_fusions
from qzoo.quant.derive.network import DerivedNetwork
from qzoo.quant.derive.normalize import functionalize, to_modules
from qzoo.quant.derive.points import make_points, read_as_integers
from qzoo.quant.derive.rewrite import LeftInFloat, Rewriting
from qzoo.quant.derive.trace import Leaf, trace
from qzoo.quant.modules import Add, Concat, Matmul, Mul, extra_keys
from qzoo.spec import Fusion, QuantSwap

__all__ = ["Derived", "DerivedNetwork", "LeftInFloat", "derive"]

CLOSE = 1e-4
"""The largest difference of two float computations in another order, as a fraction of the largest output."""

_TWINS: dict[type[nn.Module], str] = {
    kind: f"qzoo.quant.modules:Quant{kind.__name__}"
    for kind in (
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear),
        *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        *(Add, Mul, Concat, Matmul, nn.MultiheadAttention),
    )
}
_POOLINGS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)  # noqa: SLF001 - the common base has no public name


@dataclass(frozen=True)
class Derived:
    """A float network with its points as modules, and what there is to fuse and to swap in it."""

    network: DerivedNetwork
    fusions: tuple[Fusion, ...]
    swaps: tuple[QuantSwap, ...]


def derive(network: nn.Module, shape: tuple[int, ...], name: str) -> Derived:
    """Derive the placement of a float network in eval mode, which takes over its modules; `network` is used up.

    `shape` is the input's without the batch, (C, H, W); `name` is the model's. Raises SpecError where the network
    can't be traced, or where the derived one computes something else.
    """
    example = _example(shape)
    with torch.no_grad():
        expected = _outputs(network(example.clone()))
    traced = trace(network, shape, name)
    for path, value in traced.constants.items():
        owner, _, own = path.rpartition(".")
        network.get_submodule(owner).register_buffer(own, value, persistent=False)
    rewriting = Rewriting(network, traced.graph)
    _record_functions(rewriting, traced.leaves)
    functionalize(rewriting)
    to_modules(rewriting)
    spell_out_attention(rewriting)
    make_points(rewriting)
    fusions = find_fusions(rewriting)
    rewriting.graph.eliminate_dead_code(lambda node: _has_effect(rewriting, node))
    rewriting.graph.lint()
    swaps = tuple(_swaps(rewriting, traced.leaves))
    derived = DerivedNetwork(network, rewriting.graph, tuple(rewriting.left), frozenset(rewriting.computed))
    with torch.no_grad():
        _check_same(expected, _outputs(derived(example.clone())), name)
    return Derived(derived, fusions, swaps)


def _record_functions(rewriting: Rewriting, leaves: Mapping[Leaf, str]) -> None:
    for node in rewriting.graph.nodes:
        if node.op == "call_function" and node.target in leaves:
            rewriting.leave(node, "function", f"it can't be traced ({leaves[node.target]})")


def _swaps(rewriting: Rewriting, leaves: Mapping[Leaf, str]) -> Iterator[QuantSwap]:
    """A swap for every module that is called and has a quantized twin, inside what couldn't be traced too."""
    called: dict[str, list[fx.Node]] = {}
    for node in rewriting.graph.nodes:
        if node.op == "call_module":
            called.setdefault(str(node.target), []).append(node)
    for path, nodes in called.items():
        module = rewriting.network.get_submodule(path)
        if isinstance(module, _POOLINGS) and not any(read_as_integers(rewriting, node) for node in nodes):
            # a float reader takes the pooled values as they are: rounding what is pooled gains nothing
            rewriting.leave(nodes[0], "pooling", "nothing that computes in integers reads it")
        elif type(module) in _TWINS:
            yield from _twin(rewriting, path, module)
        elif type(module) in leaves:
            why = f"{type(module).__name__} can't be traced, so that only its layers are quantized"
            rewriting.left.append(LeftInFloat(path, "module", f"{why} ({leaves[type(module)]})"))
            yield from _inside(rewriting, path, module)
        elif any(isinstance(one, (*_LAYERS, nn.MultiheadAttention)) for one in module.modules()):
            why = f"{type(module).__name__} is computed in one call; write it out, of modules, to have it quantized"
            rewriting.left.append(LeftInFloat(path, "module", why))


def _inside(rewriting: Rewriting, path: str, leaf: nn.Module) -> Iterator[QuantSwap]:
    for inner, module in leaf.named_modules(prefix=path):
        if type(module) in _TWINS:
            yield from _twin(rewriting, inner, module)
        elif isinstance(module, _LAYERS) and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            kind = "linear" if isinstance(module, nn.Linear) else "convolution"
            why = f"{type(module).__name__} may compute something else than {type(module).__mro__[1].__name__}"
            rewriting.left.append(LeftInFloat(inner, kind, why))


def _twin(rewriting: Rewriting, path: str, module: nn.Module) -> Iterator[QuantSwap]:
    extra = extra_keys(module) if isinstance(module, nn.MultiheadAttention) else None
    if extra is None:
        yield QuantSwap(_TWINS[type(module)], path=path)
    else:
        why = f"PyTorch's attention with {extra} is computed in one call"
        rewriting.left.append(LeftInFloat(path, "module", why))


def _has_effect(rewriting: Rewriting, node: fx.Node) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    module = rewriting.module_of(node)
    if module is not None:
        return bool(getattr(module, "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or bool(node.kwargs.get("inplace")) or name in ("setitem", "_assert")


def _example(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def _outputs(result: object) -> list[Tensor]:
    return [one for one in (result if isinstance(result, list | tuple) else [result]) if isinstance(one, Tensor)]


def _check_same(expected: list[Tensor], found: list[Tensor], name: str) -> None:
    """Raise SpecError where the derived network's outputs are others."""
    if [one.shape for one in expected] != [one.shape for one in found]:
        raise SpecError(f"{name}: the derived network gives other outputs than the one it was derived from")
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        largest = one.abs().max().clamp(min=1e-12)
        difference = float((one - other).abs().max() / largest)
        if not difference <= CLOSE:
            raise SpecError(
                f"{name}: output {index} of the derived network differs by {difference:.1e} of the largest value from "
                'the network it was derived from; declare its fusions and swaps, with placement="declared"'
            )
