"""Finds every quantizer's amax: weights from the weights themselves, activations from one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from qzoo.errors import CalibrationError
from qzoo.quant.modules import quantizers, weight_of
from qzoo.quant.solvers import solver
from qzoo.quant.statistics import Statistics, activation_quantizers, collect
from qzoo.quant.toolkit import TensorQuantizer
from qzoo.records import CalibrationTable, QuantizerRange
from qzoo.spec import TRAINED


def calibrate(
    model: nn.Module, batches: Iterable[Tensor], calibrator: str, sample_list_sha256: str
) -> CalibrationTable:
    """Calibrate all quantizers of a network, all roles at once, and load their amax into it.

    `batches` are (N, C, H, W) float32; they are read once. Weights always use max, activations `calibrator`. Raises
    CalibrationError that names the first quantizer (in the network's order) whose amax is not finite: of a weight if
    there is one, since what it makes not finite comes later.
    """
    solver(calibrator)  # a wrong name is no reason to wait for a pass over the data
    calibrate_weights(model)
    return solve(model, collect(model, batches), calibrator, sample_list_sha256)


def calibrate_weights(model: nn.Module) -> None:
    """Load the maximum of every quantized weight as its amax. Raises CalibrationError where it is not finite."""
    for path, quantizer in quantizers(model).items():
        if quantizer.role == "weight":
            _load(quantizer, path, _weight_amax(model, path, quantizer))


def solve(model: nn.Module, statistics: Statistics, calibrator: str, sample_list_sha256: str) -> CalibrationTable:
    """Load the amax that `calibrator` finds in the statistics of a network whose weights are calibrated.

    It may be called with one calibrator after another. Raises CalibrationError as `calibrate`.
    """
    found = solver(calibrator)
    for path, quantizer in activation_quantizers(model).items():
        try:
            amax = found(statistics.collectors[path])
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
        _load(quantizer, path, torch.tensor(amax, dtype=torch.float32))
    return table_of(model, calibrator, statistics.samples, sample_list_sha256)


def table_of(model: nn.Module, calibrator: str, samples: int, sample_list_sha256: str) -> CalibrationTable:
    """Every range that a network has now. `calibrator` says how those of activations came about."""
    ranges = {
        path: QuantizerRange(
            role=quantizer.role,
            amax=tuple(float(value) for value in (quantizer.step * quantizer.high).reshape(-1)),
            axis=quantizer.axis,
            method="max" if quantizer.role == "weight" and calibrator != TRAINED else calibrator,
        )
        for path, quantizer in quantizers(model).items()
    }
    return CalibrationTable(
        calibrator=calibrator, samples=samples, sample_list_sha256=sample_list_sha256, ranges=ranges
    )


def _load(quantizer: TensorQuantizer, path: str, amax: Tensor) -> None:
    try:
        quantizer.load_amax(amax)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def apply_table(model: nn.Module, table: CalibrationTable) -> None:
    """Load a table's ranges of activations; those of weights are the weights' own maximum, BatchNorm folded or not.

    Raises CalibrationError where the two name different quantizers.
    """
    found = quantizers(model)
    if found.keys() != table.ranges.keys():
        odd = min(found.keys() ^ table.ranges.keys())
        raise CalibrationError(f"the calibration table is for other quantizers: {odd} is in only one of the two")
    for path, quantizer in found.items():
        weight = quantizer.role == "weight"
        amax = _weight_amax(model, path, quantizer) if weight else torch.tensor(table.ranges[path].amax)
        _load(quantizer, path, amax)


def _weight_amax(model: nn.Module, path: str, quantizer: TensorQuantizer) -> Tensor:
    weight = weight_of(model, path).detach().abs()
    if quantizer.axis is None:
        return weight.amax()
    return weight.amax([axis for axis in range(weight.dim()) if axis != quantizer.axis])
