"""Reading checkpoint files: safetensors, and .pth without running what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from qzoo.errors import WeightsMismatch

if TYPE_CHECKING:
    from torch import Tensor

V = TypeVar("V")

SAFETENSORS = frozenset({".safetensors"})

PICKLED = frozenset({".pth", ".pt", ".bin"})

WRAPPERS = ("state_dict", "model_state_dict", "model")

PREFIXES = ("module.", "model.")

HEADER = "qzoo"
"""The key under which `qzoo train` describes a run in a safetensors file's header."""

RANGE = "._amax"
"""The end of a quantizer's range's name in the state of a network that was trained with fake quantization."""


def load_state(path: Path, head: str | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, on the CPU, wrappers and `module.`/`model.` prefixes taken off.

    Where `head` is given, names under which the head's weight is found as it is are left alone. A .pth is read with
    `weights_only=True`, so that it can't run code. Raises WeightsMismatch, also for a file that is damaged.
    """
    from torch import Tensor

    state = _read_safetensors(path) if is_safetensors(path) else _unwrap(_read_pickled(path))
    if not isinstance(state, Mapping) or not state:
        raise WeightsMismatch(f"weights: {path} holds a {type(state).__name__}, not a dictionary of tensors")
    odd = next((key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)), None)
    if odd is not None:
        kind = type(state[odd]).__name__
        raise WeightsMismatch(f"weights: {path} holds no dictionary of tensors: {odd!r} is a {kind}")
    return strip_prefixes(state, head)


def split_ranges(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The float network's own tensors, and the ranges of a network trained with fake quantization, by quantizer."""
    own = {name: value for name, value in state.items() if not name.endswith(RANGE)}
    return own, {name.removesuffix(RANGE): value for name, value in state.items() if name.endswith(RANGE)}


def num_classes(state: Mapping[str, Tensor], head: str) -> int:
    """The class count: the first axis of the head's weight. Raises WeightsMismatch where there is no such tensor."""
    return first_axis({key: tuple(value.shape) for key, value in state.items()}, head)


def is_safetensors(path: Path) -> bool:
    """Whether a checkpoint is a safetensors file, by its name. Raises WeightsMismatch for a name that is neither."""
    if path.suffix not in SAFETENSORS | PICKLED:
        known = ", ".join(sorted(SAFETENSORS | PICKLED))
        raise WeightsMismatch(f"weights: {path} is not one of {known}")
    return path.suffix in SAFETENSORS


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, read from the header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(f"weights: {path} is not a whole safetensors file: {error}; fetch it again") from error


def first_axis(shapes: Mapping[str, tuple[int, ...]], head: str) -> int:
    """The first axis of the head's weight. Raises WeightsMismatch where there is no such tensor."""
    shape = shapes.get(f"{head}.weight")
    if not shape:
        some = ", ".join(list(shapes)[-3:])
        raise WeightsMismatch(f"weights: the checkpoint has no {head}.weight to count the classes by (it has {some})")
    return shape[0]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsMismatch(f"weights: {path} is not a whole safetensors file: {error}; fetch it again") from error


def _read_pickled(path: Path) -> object:
    from pickle import UnpicklingError

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsMismatch(
            f"weights: {path} was refused: it holds more than tensors, which could run code, or it is damaged; "
            f"where you trust it, convert it to .safetensors and give that"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsMismatch(f"weights: {path} is not a whole PyTorch checkpoint: {error}; fetch it again") from error


def _unwrap(state: object) -> object:
    """Take a state dict out of what training scripts save around it."""
    while isinstance(state, Mapping):
        inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    return state


def strip_prefixes(state: Mapping[str, V], head: str | None) -> dict[str, V]:
    """Take off the prefixes that DataParallel and training frameworks put before every name."""
    found = dict(state)
    while f"{head}.weight" not in found:
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in found)), None)
        if prefix is None or not found:
            break
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found
