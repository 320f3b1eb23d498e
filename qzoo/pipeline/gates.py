"""What a build must hold to, or end with exit code 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from qzoo.errors import AccuracyGateError
from qzoo.records import Fidelity, LayerError, Measurement
from qzoo.spec import Precision, Recipe, Tolerances

CHAOS_DB = 4.0
"""Two evaluations of one quantized network that add in another order differ where a value lies on a rounding step, and
each such difference makes more in the next layer. In a deep network that grows until the two are as far apart as noise
of the quantization's own power on both sides puts them: 3 dB below its SQNR, and 1 dB for the estimate. More is
something else than rounding. (Measured on one resnet20, whose SQNR to the float network is 33 dB: images one at a time
against sixteen at a time 45 dB, double precision 41 dB. ResNet-50 with random weights is 12 dB from itself.)"""

HALF_DB = 20.0
"""What is asked of engines that compute in 16 bits: bf16 keeps 8 bits of each value."""


def check_export(found: Fidelity, quantization: Fidelity | None, tolerances: Tolerances, model: str) -> None:
    """Raise AccuracyGateError where the portable graph, unoptimized, is not the network it was exported from.

    `quantization` is the fake-quantized network's fidelity to the float one; None for a float network.
    """
    least = _least_db(tolerances.export_sqnr_db, quantization)
    if not found.sqnr_db >= least:  # nor if it is nan
        raise AccuracyGateError(
            f"the exported graph of {model} is {found.sqnr_db} dB from the network it came from, allowed are "
            f"{least:.1f} dB; does its forward depend on the batch, or on Python values?"
        )


def check_finite(outputs: Mapping[str, NDArray[np.float32]], precision: Precision, model: str) -> None:
    """Raise AccuracyGateError where a lowered graph overflows in 16 bits: fp16 ends at 65504."""
    for name, array in outputs.items():
        if precision in _HALF and not np.isfinite(array).all():
            raise AccuracyGateError(
                f"the lowered graph of {model} gives values in {name} that aren't finite in {precision}; its "
                "activations are too large for it: use --precision fp32 or int8"
            )


def check_engine(
    found: Fidelity | None,
    quantization: Fidelity | None,
    recipe: Recipe,
    runtime: str,
    where: Callable[[float], object] = lambda _: None,
) -> None:
    """Raise AccuracyGateError where an engine computes something else than its lowered graph. None: it didn't run.

    `quantization` is the lowered graph's fidelity to the float network; None for a float network. `where` says at which
    operator an engine departs by less than so many dB, and what to do, for the message.
    """
    if found is None:
        return
    tolerances = recipe.tolerances
    half = recipe.precision in _HALF
    least = _least_db(min(tolerances.engine_sqnr_db, HALF_DB) if half else tolerances.engine_sqnr_db, quantization)
    if not found.sqnr_db >= least and not (half and found.top1_agreement is None):
        raise AccuracyGateError(
            f"the {runtime} engine is {found.sqnr_db} dB from its lowered graph, allowed are {least:.1f} dB; the "
            f"runtime computes something else than the graph says{_told(where(least))}"
        )
    if found.top1_agreement is None:
        return
    agreement = tolerances.engine_top1
    if quantization is not None and quantization.top1_agreement is not None:
        agreement = min(agreement, quantization.top1_agreement - 1 / found.samples)
    if found.top1_agreement < agreement:
        raise AccuracyGateError(
            f"the {runtime} engine decides as its lowered graph on {found.top1_agreement:.2%} of the held-out images, "
            f"allowed are {agreement:.2%}"
        )


def check_accuracy(
    measurement: Measurement, tolerances: Tolerances, model: str, worst: Callable[[], list[LayerError]]
) -> None:
    """Raise AccuracyGateError, naming the worst layers, where INT8 costs more accuracy or lowering more SQNR."""
    if measurement.accuracy is not None:
        before, after = measurement.accuracy["float"], measurement.accuracy["engine"]
        drop = 100 * (before.correct - after.correct) / after.total
        if drop > tolerances.max_drop:
            raise AccuracyGateError(
                f"{model} drops {drop:.2f} points ({before.correct} -> {after.correct} of {after.total}), "
                f"allowed are {tolerances.max_drop:g} (--max-drop){_named(worst())}"
            )
    cost, trained = (
        measurement.lowering_cost_db,
        measurement.fidelity is not None and (measurement.fidelity.top1_agreement is not None),
    )
    if trained and cost is not None and cost > tolerances.lowering_sqnr_db:
        raise AccuracyGateError(
            f"lowering {model} for {measurement.target} costs {cost:.2f} dB of SQNR to the float model, allowed are "
            f"{tolerances.lowering_sqnr_db:g}{_named(worst())}"
        )


_HALF: tuple[Precision, ...] = ("bf16", "fp16", "int8+fp16")


def _least_db(tolerance: float, quantization: Fidelity | None) -> float:
    return tolerance if quantization is None else min(tolerance, quantization.sqnr_db - CHAOS_DB)


def _told(place: object) -> str:
    return "; take another --target" if place is None else f"; {place}"


def _named(worst: list[LayerError]) -> str:
    layers = ", ".join(f"{layer.path} {layer.sqnr_db:.1f} dB" for layer in worst)
    return f"; the layers with the worst SQNR: {layers}; try another --calib, or keep them in float" if layers else ""
