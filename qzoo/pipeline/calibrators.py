"""A plan's calibration: one calibrator, or several side by side, all from one pass over the calibration images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from qzoo.measure import accuracy, decide, fidelity
from qzoo.pipeline.forward import Outputs, batches_of, forward, steps
from qzoo.pipeline.images import Images, read_compared
from qzoo.pipeline.plan import Plan
from qzoo.pipeline.progress import Progress, tracked
from qzoo.quant.calibrate import calibrate_weights, solve
from qzoo.quant.solvers import solver
from qzoo.quant.statistics import Statistics, collect
from qzoo.records import CalibrationTable, CalibratorTrial
from qzoo.spec import AUTO, COMPARED_CALIBRATORS


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The ranges that a network has now; and where the plan compares calibrators, each one's figures and on what."""

    table: CalibrationTable
    trials: tuple[CalibratorTrial, ...] = ()
    compared: Images | None = None


def calibrate_plan(
    quantized: nn.Module, network: nn.Module, plan: Plan, calibration: Images, progress: Progress
) -> Calibrated:
    """Calibrate a plan's `quantized` network with its recipe's calibrator, and compare others where the plan says so.

    They are compared on calibration images that no histogram saw, each by the fake-quantized network's fidelity to
    `network`, the float one. "auto" takes the one of COMPARED_CALIBRATORS with the largest SQNR, as it is reported (to
    0.01 dB); of several the first. Raises CalibrationError or DataUnavailable.
    """
    own, digest = plan.recipe.calibrator, plan.inputs.sample_list_sha256
    if own != AUTO:
        solver(own)  # a wrong name is no reason to wait for a pass over the data
    calibrate_weights(quantized)
    progress.stage(f"calibrating ({own})", steps(calibration.images))
    statistics = collect(quantized, tracked(batches_of(calibration.images), progress))
    if not plan.compared:
        return Calibrated(table=solve(quantized, statistics, own, digest))
    compared = read_compared(plan, progress)
    progress.stage("float reference of the calibrators", steps(compared.images))
    reference = forward(network, compared.images, plan.spec.outputs, progress)
    names = COMPARED_CALIBRATORS if own in (AUTO, *COMPARED_CALIBRATORS) else (*COMPARED_CALIBRATORS, own)
    trials = tuple(_trial(name, quantized, statistics, plan, compared, reference, progress) for name in names)
    best = max(trials, key=lambda trial: trial.fidelity.sqnr_db)  # the first of several
    chosen = best.calibrator if own == AUTO else own
    return Calibrated(
        table=solve(quantized, statistics, chosen, digest),
        trials=tuple(replace(trial, chosen=trial.calibrator == chosen) for trial in trials),
        compared=compared,
    )


def _trial(
    name: str,
    quantized: nn.Module,
    statistics: Statistics,
    plan: Plan,
    compared: Images,
    reference: Outputs,
    progress: Progress,
) -> CalibratorTrial:
    solve(quantized, statistics, name, "")
    progress.stage(f"comparing calibrators ({name})", steps(compared.images))
    outputs = forward(quantized, compared.images, plan.spec.outputs, progress)
    decision, labels = plan.spec.decision, compared.labels if plan.trained else None
    return CalibratorTrial(
        calibrator=name,
        chosen=False,
        fidelity=fidelity(reference, outputs, decision, trained=plan.trained),
        accuracy=None if labels is None else accuracy(decide(outputs, decision), labels),
    )
