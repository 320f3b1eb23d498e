"""Weights into a network: a checkpoint's, or random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from qzoo.errors import WeightsMismatch

if TYPE_CHECKING:
    from torch import Tensor, nn


def apply(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load a state dict into a network, every name and shape exactly. `name` is what a message calls the checkpoint.

    Raises WeightsMismatch that names the first tensors that don't fit, or one that holds a value which is not finite;
    the network is half loaded then.
    """
    for key, value in state.items():
        if not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).sum())
            raise WeightsMismatch(
                f"weights: {name}: {bad} of {value.numel()} values of {key} are not finite, and the amax of its layer "
                "would not be either; give another checkpoint"
            )
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        given = {key: tuple(value.shape) for key, value in state.items()}
        raise WeightsMismatch(
            f"weights: {name} is not a checkpoint of this network: {_difference(expected, given)}"
        ) from error


def initialize_random(build: Callable[[], nn.Module], seed: int, batch: Tensor) -> nn.Module:
    """A network built under `seed`, its BatchNorm statistics those of one pass of `batch`; in eval mode.

    The global random state is left as it was. Without that pass a deep network's activations would grow by
    orders of magnitude, and neither ranges nor fidelity would resemble a trained network's. Convolutions and linear
    layers that the builder leaves at zero, as some heads, are drawn as PyTorch draws them: behind zeros all engines
    are alike.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().eval()
        _draw_zeros(model)
        _set_batchnorm_statistics(model, batch)
    return model


def _draw_zeros(model: nn.Module) -> None:
    from torch.nn import Linear
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.parameter import is_lazy

    for module in model.modules():
        if isinstance(module, Linear | _ConvNd) and not is_lazy(module.weight) and not module.weight.any():
            module.reset_parameters()


def _difference(expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]) -> str:
    """The first three of each kind of misfit."""
    parts = []
    for what, keys in (("lacks", expected.keys() - given.keys()), ("has an unknown", given.keys() - expected.keys())):
        if keys:
            parts.append(f"it {what} {_some(sorted(keys))}")
    shapes = [key for key in expected if key in given and expected[key] != given[key]]
    if shapes:
        parts.append(_some(f"{key} is {given[key]} instead of {expected[key]}" for key in shapes))
    return "; ".join(parts)


def _some(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _set_batchnorm_statistics(model: nn.Module, batch: Tensor) -> None:
    """One pass with only the BatchNorms in training mode; without momentum their statistics are the batch's own."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momentums = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(batch)
    for norm, momentum in zip(norms, momentums, strict=True):
        norm.momentum = momentum
        norm.eval()
