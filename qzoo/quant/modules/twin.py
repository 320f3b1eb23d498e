"""How a quantized module and its float twin hang together, and how its quantizers are found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import TypeVar

from torch import Tensor, nn

from qzoo.errors import SpecError
from qzoo.quant.toolkit import TensorQuantizer

M = TypeVar("M", bound=nn.Module)


def check_twin(cls: type[nn.Module], module: nn.Module) -> None:
    """Raise SpecError unless the class of `module` is a base of `cls`.

    A class derived from that base is refused too: its forward may compute something else.
    """
    if not issubclass(cls, type(module)):
        raise SpecError(
            f"{cls.__name__} can't be made from a {type(module).__module__}.{type(module).__name__}, which may compute "
            f"something else; correct the swap, or derive a quantized class from {type(module).__name__}"
        )


def adopt(cls: type[M], module: nn.Module) -> M:
    """An instance of `cls` with the settings, mode, parameters and buffers of `module`, its float twin.

    What the twin holds is shared, not copied; it stays as it is. Raises SpecError as `check_twin` does.
    """
    check_twin(cls, module)
    adopted = cls.__new__(cls)
    adopted.__dict__ = {
        key: copy(value) if isinstance(value, dict | set) else value for key, value in vars(module).items()
    }
    return adopted


def quantizers(model: nn.Module) -> dict[str, TensorQuantizer]:
    """Every quantizer of a network by its module path, in the network's order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, TensorQuantizer)}


@contextmanager
def weights_rounded_once(model: nn.Module) -> Iterator[None]:
    """A context in which each weight of a network is fake-quantized once, not in every call."""
    found = [quantizer for quantizer in quantizers(model).values() if quantizer.role == "weight"]
    for quantizer in found:
        quantizer.keep_rounded(on=True)
    try:
        yield
    finally:
        for quantizer in found:
            quantizer.keep_rounded(on=False)


def weight_of(model: nn.Module, path: str) -> Tensor:
    """The weight that the weight quantizer at `path` quantizes: of `weight_quantizer`, its module's `weight`.

    Raises SpecError if its module has none of that name.
    """
    parent, _, own = path.rpartition(".")
    owner, name = model.get_submodule(parent), own.removesuffix("_quantizer")
    weight = getattr(owner, name, None)
    if not isinstance(weight, Tensor):
        raise SpecError(
            f"{path}: {type(owner).__name__} has a weight quantizer but no tensor called {name}; call the quantizer of "
            "a weight by the weight's name, with _quantizer behind it"
        )
    return weight
