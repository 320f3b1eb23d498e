"""A training run's state after an epoch, in one safetensors file: what --resume goes on from.

Tensors are called `network.<name>`, `best.<name>` (where the best epoch isn't the last) and
`optimizer.<parameter>.<name>`; the rest is JSON in the header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from qzoo.errors import WeightsMismatch
from qzoo.records import EpochRecord, encode
from qzoo.weights import HEADER, RANGE

LEARNED = "log2_amax"
"""A quantizer's range in a network's state while it is learned."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """`run` says what is trained on what; `best` is the network of the epoch with the best validation accuracy."""

    run: Mapping[str, Any]
    history: tuple[EpochRecord, ...]
    best_epoch: int
    network: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]

    def serialized(self) -> bytes:
        """The file's bytes."""
        tensors = {f"network.{name}": value for name, value in self.network.items()}
        if self.best_epoch != len(self.history):  # else the best is the last
            tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for index, state in self.optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        header = {
            "run": self.run,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "param_groups": self.optimizer["param_groups"],
            "schedule": self.schedule,
        }
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return save(plain, {HEADER: encode(header).decode()})


def weights_file(weights: Mapping[str, Tensor], run: Mapping[str, Any]) -> bytes:
    """A network's weights as safetensors, with what they were trained by in the header. Learned ranges become plain."""
    plain = {}
    for name, value in weights.items():
        module, _, own = name.rpartition(".")
        learned = own == LEARNED
        kept = torch.exp2(value) if learned else value
        plain[f"{module}{RANGE}" if learned else name] = kept.detach().cpu().contiguous()
    return save(plain, {HEADER: encode(run).decode()})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint back. Raises WeightsMismatch where the file isn't one."""
    header = _header(path)
    missing = {"run", "history", "best_epoch", "param_groups", "schedule"} - header.keys()
    if missing:
        raise WeightsMismatch(f"{path} is no checkpoint of `qzoo train`: it lacks {min(missing)}; give --resume one")
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "best": {}, "optimizer": {}}
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - no dict
            part, _, name = key.partition(".")
            parts[part][name] = file.get_tensor(key)
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in parts["optimizer"].items():
        index, _, name = key.partition(".")
        states.setdefault(int(index), {})[name] = value
    return Checkpoint(
        run=header["run"],
        history=msgspec.convert(header["history"], tuple[EpochRecord, ...]),
        best_epoch=header["best_epoch"],
        network=parts["network"],
        best=parts["best"] or parts["network"],
        optimizer={"state": states, "param_groups": header["param_groups"]},
        schedule=header["schedule"],
    )


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {}).get(HEADER, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsMismatch(f"{path} can't be read as a safetensors file: {error}; give another") from error
    return found
