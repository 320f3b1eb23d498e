"""One pass over the data: what every activation's quantizer saw of it, to be kept, continued and added up."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from qzoo.errors import CalibrationError, IntegrityError
from qzoo.quant.histogram import Collector
from qzoo.quant.modules import quantizers, weights_rounded_once
from qzoo.quant.toolkit import TensorQuantizer
from qzoo.writing import write_file

SAMPLES = "qzoo.samples"
"""The number of samples, in the file's header."""


@dataclass(slots=True)
class Statistics:
    """A histogram for each quantizer of an activation, by module path, and how many samples they are of.

    64 KiB for each quantizer, whatever the number of samples.
    """

    collectors: dict[str, Collector]
    samples: int = 0

    @classmethod
    def of(cls, model: nn.Module) -> Statistics:
        """Empty ones for a network with quantizers."""
        return cls({path: Collector() for path in activation_quantizers(model)})

    def merge(self, other: Statistics) -> None:
        """Add what was collected apart from the same network. Raises CalibrationError where it was another."""
        _check_same(self.collectors.keys(), other.collectors.keys())
        for path, collector in self.collectors.items():
            collector.merge(other.collectors[path])
        self.samples += other.samples

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all. Raises StoreError."""
        tensors = {
            f"{quantizer}/{name}": value
            for quantizer, collector in self.collectors.items()
            for name, value in collector.state().items()
        }
        write_file(path, save(tensors, {SAMPLES: str(self.samples)}))

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read a file of `save`. Raises IntegrityError where it is none."""
        states: dict[str, dict[str, Tensor]] = defaultdict(dict)
        try:
            with safe_open(path, framework="pt") as file:
                samples = int((file.metadata() or {})[SAMPLES])
                for key in file.keys():  # noqa: SIM118 - no dict
                    quantizer, _, name = key.rpartition("/")
                    states[quantizer][name] = file.get_tensor(key)
            return cls({quantizer: Collector.from_state(state) for quantizer, state in states.items()}, samples)
        except (SafetensorError, OSError, KeyError, ValueError, IntegrityError) as error:
            raise IntegrityError(f"{path} holds no statistics of a calibration: {error}; collect them anew") from error


def activation_quantizers(model: nn.Module) -> dict[str, TensorQuantizer]:
    """The quantizers of a network that quantize no weight, by module path, in the network's order."""
    return {path: quantizer for path, quantizer in quantizers(model).items() if quantizer.role != "weight"}


def collect(model: nn.Module, batches: Iterable[Tensor], statistics: Statistics | None = None) -> Statistics:
    """Show all quantizers of activations, in one pass, what they would quantize. Weights are quantized if calibrated.

    `batches` are (N, C, H, W) float32, read once. With `statistics` it goes on where those were left, in place; a call
    that is interrupted leaves a batch half counted, so save them between calls. Raises CalibrationError where they are
    another network's.
    """
    found, activations = statistics or Statistics.of(model), activation_quantizers(model)
    _check_same(found.collectors.keys(), activations.keys())
    seen = _Seen()
    for path, collector in found.collectors.items():
        activations[path].start_collecting(_Shared(collector, seen))
    try:
        with torch.no_grad(), weights_rounded_once(model):
            for batch in batches:
                model(batch)
                seen.forget()
                found.samples += batch.shape[0]
    finally:
        for path in found.collectors:
            activations[path].stop_collecting()
    return found


class _Seen:
    """The histograms of the tensors of one batch: a residual block's input is what several quantizers read."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Collector]] = {}

    def histogram(self, x: Tensor) -> Collector:
        """That of a tensor, counted once as long as it lives and isn't written to."""
        tensor, version, counted = self._known.get(id(x), (None, 0, None))
        if counted is None or tensor is None or tensor() is not x or version != x._version:  # noqa: SLF001 - PyTorch's count of writes has no public name
            counted = Collector.of(x)
            self._known[id(x)] = weakref.ref(x), x._version, counted  # noqa: SLF001
        return counted

    def forget(self) -> None:
        """The batch is over."""
        self._known.clear()


class _Shared:
    """A collector that doesn't count again what another one of the network has counted in this batch."""

    def __init__(self, collector: Collector, seen: _Seen) -> None:
        self._collector, self._seen = collector, seen

    def collect(self, x: Tensor) -> None:
        self._collector.merge(self._seen.histogram(x))


def _check_same(ours: Iterable[str], theirs: Iterable[str]) -> None:
    odd = {*ours} ^ {*theirs}
    if odd:
        raise CalibrationError(f"the statistics are of another network: {min(odd)} is in only one of the two")
