"""Which layers lose most to quantization."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qzoo.quant.modules import quantizers
from qzoo.quant.toolkit import TensorQuantizer
from qzoo.records import LayerError


def layer_errors(model: nn.Module, batch: Tensor) -> list[LayerError]:
    """SQNR in dB of each quantized module, worst first: it alone quantized, its inputs those of the float network.

    `model` is calibrated; `batch` is (N, C, H, W) float32. SQNR = 10 log10(sum(y^2) / sum((y - yq)^2)) over the
    module's output, of several the first. A module inside another is compared by itself, too.
    """
    found = quantizers(model)
    owners = sorted({path.rpartition(".")[0] for path in found})
    errors: dict[str, LayerError] = {}
    hooks = [
        model.get_submodule(path).register_forward_hook(_comparer(path, errors), with_kwargs=True) for path in owners
    ]
    try:
        with torch.no_grad(), _disabled(found.values()):
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return sorted(errors.values(), key=lambda error: (error.sqnr_db, error.path))


def _comparer(path: str, errors: dict[str, LayerError]):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a torch hook
    def compare(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: object) -> None:
        if path in errors:
            return  # it is inside one that is computed again
        own = [child for child in module.children() if isinstance(child, TensorQuantizer)]
        for quantizer in own:
            quantizer.enable()
        quantized = module.forward(*args, **kwargs)
        for quantizer in own:
            quantizer.disable()
        wanted, got = _tensor(output), _tensor(quantized)
        signal, noise = wanted.double().square().sum(), (wanted - got).double().square().sum()
        decibels = float(10 * torch.log10(signal / noise)) if noise > 0 and signal > 0 else 200.0
        errors[path] = LayerError(path=path, sqnr_db=round(min(decibels, 200.0), 2))

    return compare


def _tensor(output: object) -> Tensor:
    first: Tensor = output[0] if isinstance(output, tuple) else output  # type: ignore[assignment]
    return first


@contextmanager
def _disabled(found: object) -> Iterator[None]:
    for quantizer in found:  # type: ignore[attr-defined]
        quantizer.disable()
    try:
        yield
    finally:
        for quantizer in found:  # type: ignore[attr-defined]
            quantizer.enable()
