"""Folds BatchNorm into the convolution or linear layer before it, as a spec's fusions say."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from qzoo.errors import SpecError
from qzoo.spec import Fusion


def fold_batchnorm(model: nn.Module, fusions: Iterable[Fusion]) -> list[tuple[str, str, str | None]]:
    """Fold each fusion's BatchNorm into its layer, in place; the BatchNorm becomes an Identity.

    W' = W * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, per output channel (Jacob et
    al. 2018, section 3.2). Returns the (conv, bn, activation) paths. The network must be in eval mode. Raises SpecError
    for a pattern that matches nothing or names other kinds of modules.
    """
    modules = dict(model.named_modules())
    bound = [group for fusion in fusions for group in fusion.bind(modules)]
    for conv_path, bn_path, _ in bound:
        conv, bn = modules[conv_path], modules[bn_path]
        linear = isinstance(conv, nn.Linear) and isinstance(bn, nn.BatchNorm1d)
        if not linear and not isinstance(conv, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            raise SpecError(f"fusion: {conv_path} is a {type(conv).__name__}, not a convolution")
        if not isinstance(bn, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the common base has no public name
            raise SpecError(f"fusion: {bn_path} is a {type(bn).__name__}, not a BatchNorm (is it fused twice?)")
        model.set_submodule(conv_path, fuse_linear_bn_eval(conv, bn) if linear else fuse_conv_bn_eval(conv, bn))
        modules[bn_path] = _identity(bn)
        model.set_submodule(bn_path, modules[bn_path])
    return bound


def _identity(bn: nn.Module) -> nn.Module:
    """What a folded BatchNorm leaves: an activation inside it is still called by its path."""
    left = nn.Identity()
    for name, child in bn.named_children():
        left.add_module(name, child)
    return left
