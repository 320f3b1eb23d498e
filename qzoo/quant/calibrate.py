"""Finds every quantizer's amax: weights from the weights themselves, activations from one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qzoo.errors import CalibrationError
from qzoo.quant.histogram import Collector, solver
from qzoo.quant.modules import quantizers, weight_of
from qzoo.quant.toolkit import TensorQuantizer
from qzoo.records import CalibrationTable, QuantizerRange


def calibrate(
    model: nn.Module, batches: Iterable[Tensor], calibrator: str, sample_list_sha256: str
) -> CalibrationTable:
    """Calibrate all quantizers of a network, all roles at once, and load their amax into it.

    `batches` are (N, C, H, W) float32; they are read once. Weights always use max, activations `calibrator`. Raises
    CalibrationError that names the first quantizer (in the network's order) whose amax is not finite.
    """
    found = quantizers(model)
    activations = {path: quantizer for path, quantizer in found.items() if quantizer.role != "weight"}
    samples = _collect(model, activations, batches, calibrator)
    ranges = {}
    for path, quantizer in found.items():
        method = "max" if quantizer.role == "weight" else calibrator
        amax = _weight_amax(model, path, quantizer) if quantizer.role == "weight" else samples.amax[path]
        try:
            quantizer.load_amax(amax)
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
        values = tuple(float(v) for v in quantizer.amax.reshape(-1))
        ranges[path] = QuantizerRange(role=quantizer.role, amax=values, axis=quantizer.axis, method=method)
    return CalibrationTable(
        calibrator=calibrator, samples=samples.count, sample_list_sha256=sample_list_sha256, ranges=ranges
    )


def apply_table(model: nn.Module, table: CalibrationTable) -> None:
    """Load a calibration table into a network. Raises CalibrationError where the two name different quantizers."""
    found = quantizers(model)
    if found.keys() != table.ranges.keys():
        odd = min(found.keys() ^ table.ranges.keys())
        raise CalibrationError(f"the calibration table is for other quantizers: {odd} is in only one of the two")
    for path, quantizer in found.items():
        quantizer.load_amax(torch.tensor(table.ranges[path].amax))


class _Collected:
    def __init__(self) -> None:
        self.count = 0
        self.amax: dict[str, Tensor] = {}


def _collect(
    model: nn.Module, activations: dict[str, TensorQuantizer], batches: Iterable[Tensor], calibrator: str
) -> _Collected:
    solve, collected = solver(calibrator), _Collected()
    collectors = {path: Collector() for path in activations}
    for path, quantizer in activations.items():
        quantizer.start_collecting(collectors[path])
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
                collected.count += batch.shape[0]
    finally:
        for quantizer in activations.values():
            quantizer.stop_collecting()
    for path, collector in collectors.items():
        try:
            collected.amax[path] = torch.tensor(solve(collector), dtype=torch.float32)
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
    return collected


def _weight_amax(model: nn.Module, path: str, quantizer: TensorQuantizer) -> Tensor:
    weight = weight_of(model, path).detach().abs()
    if quantizer.axis is None:
        return weight.amax()
    return weight.amax([axis for axis in range(weight.dim()) if axis != quantizer.axis])
