"""Float network -> network with quantizers: BatchNorm folded, modules swapped on this one instance."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from importlib import import_module

from torch import nn

from qzoo.errors import SpecError
from qzoo.quant.derive import derive
from qzoo.quant.fuse import fold_batchnorm
from qzoo.quant.modules import quantizers
from qzoo.spec import Fusion, ModelSpec, QuantSwap, Recipe, match_path, matches_any

_BY_TYPE = (
    *("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear"),
    *("AvgPool1d", "AvgPool2d", "AvgPool3d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"),
)
AUTO_SWAPS = tuple(QuantSwap(f"qzoo.quant.modules:Quant{kind}", type=f"torch.nn.{kind}") for kind in _BY_TYPE)
"""`--placement auto`: plain module replacement by type, as pytorch-quantization's own `initialize` does it."""


def insert_quantizers(model: nn.Module, spec: ModelSpec, recipe: Recipe, *, trainable: bool = False) -> nn.Module:
    """A copy of a float network in eval mode, its BatchNorms folded and its modules swapped for quantized ones.

    `trainable` keeps the BatchNorms, which fine-tuning needs; the exported graph has them folded all the same. Where
    the spec's placement is derived, what it declares itself is taken before what is derived. Raises SpecError for a
    fusion or swap that matches nothing, a float-kept path that names no module, or a network that `derive` refuses.
    """
    quantized, fusions, swaps = deepcopy(model).eval(), spec.fusions, spec.swaps
    if recipe.placement == "auto":
        swaps = AUTO_SWAPS
    elif spec.placement == "derived":
        derived = derive(quantized, spec.input.shape, spec.name)
        quantized = derived.network
        fusions = (*fusions, *_undeclared(derived.fusions, fusions, quantized))
        swaps = (*derived.swaps, *swaps)
    if not trainable:
        fold_batchnorm(quantized, fusions)
    kept = (*spec.keep_float, *recipe.keep_float)
    _check_kept(quantized, kept)
    weight_axis = 0 if recipe.per_channel else None
    for path, swap in dict(_chosen(quantized, swaps, kept)).items():
        target = resolve(swap.to)
        try:
            quantized.set_submodule(path, target.from_float(quantized.get_submodule(path), weight_axis))  # type: ignore[attr-defined]
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from error
    for path, quantizer in quantizers(quantized).items():
        quantizer.path = path
        if quantizer.role == "weight":
            quantizer.num_bits = recipe.weight_bits
    if not quantizers(quantized):
        raise SpecError(f"{spec.name}: no module was quantized; declare swaps, or use --placement auto")
    return quantized


def resolve(name: str) -> object:
    """The object that "package.module:attribute" names. Raises SpecError."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SpecError(f"{name!r} can't be loaded: {error}") from error


def _undeclared(derived: tuple[Fusion, ...], declared: tuple[Fusion, ...], model: nn.Module) -> list[Fusion]:
    """The derived fusions whose BatchNorm no declared one has."""
    paths = dict(model.named_modules())
    taken = {bn for fusion in declared for _, bn, _ in fusion.bind(paths)}
    return [fusion for fusion in derived if fusion.bn not in taken]


def _chosen(model: nn.Module, swaps: tuple[QuantSwap, ...], kept: tuple[str, ...]) -> Iterator[tuple[str, QuantSwap]]:
    modules = dict(model.named_modules())
    for swap in swaps:
        found = [path for path, module in modules.items() if _selects(swap, path, module)]
        if not found and swap.path is not None:
            raise SpecError(f"quant swap: {swap.path!r} matches no module")
        for path in found:
            if not matches_any(path, kept):
                yield path, swap


def _selects(swap: QuantSwap, path: str, module: nn.Module) -> bool:
    if swap.path is not None:
        return match_path(swap.path, path) is not None
    return f"{type(module).__module__}.{type(module).__name__}" == _canonical_type(swap.type or "")


def _canonical_type(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    found = resolve(f"{module}:{attribute}")
    if not isinstance(found, type):
        raise SpecError(f"quant swap: {name!r} is not a class")
    return f"{found.__module__}.{found.__name__}"


def _check_kept(model: nn.Module, kept: tuple[str, ...]) -> None:
    paths = [path for path, _ in model.named_modules()]
    for glob in kept:
        if not any(matches_any(path, (glob,)) for path in paths):
            raise SpecError(f"keep_float: {glob!r} matches no module")
