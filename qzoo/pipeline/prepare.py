"""Float weights -> what every target starts from: portable graph, float graph, the float network's outputs."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from qzoo.errors import CalibrationError
from qzoo.export import export, export_with_float
from qzoo.pipeline.calibrators import Calibrated, calibrate_plan
from qzoo.pipeline.forward import Outputs, fast_layout, few, forward, laid_out, steps
from qzoo.pipeline.images import Images, read_calibration, read_held_out
from qzoo.pipeline.network import LoadedNetwork, load_network, load_ranges
from qzoo.pipeline.plan import Plan
from qzoo.pipeline.progress import Clocked, Progress
from qzoo.pipeline.training_data import TrainingData
from qzoo.quant.calibrate import table_of
from qzoo.quant.derive import DerivedNetwork, derive
from qzoo.quant.fuse import fold_batchnorm
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.sensitivity import layer_errors
from qzoo.records import CalibrationTable, CalibratorTrial, LayerError
from qzoo.spec import TRAINED, ModelSpec, Training
from qzoo.train.fit import Job, fit
from qzoo.train.parallel import World


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is the same for every target."""

    portable: ir.Model
    float_graph: ir.Model
    table: CalibrationTable | None
    calibration: Images
    held_out: Images
    float_outputs: Outputs
    fake_quantized_outputs: Outputs | None
    quantized: nn.Module | None
    trials: tuple[CalibratorTrial, ...] = ()
    compared: Images | None = None
    seconds: dict[str, float]

    def left_in_float(self) -> list[str]:
        """What a derived placement put no quantizer on, and why, a line for each reason."""
        recorded = self.quantized.left_in_float if isinstance(self.quantized, DerivedNetwork) else ()
        counted = Counter((one.kind, one.reason) for one in recorded)
        return [f"in float: {count} x {kind}, {reason}" for (kind, reason), count in counted.items()]

    def worst_layers(self, count: int = 5) -> list[LayerError]:
        """The layers with the worst SQNR, each quantized alone."""
        if self.quantized is None:
            return []
        return layer_errors(self.quantized, few(self.held_out))[:count]


def prepare(plan: Plan, progress: Progress) -> Prepared:
    """Load, calibrate and export. Raises UnavailableError, PluginError, ExportError or GraphError."""
    spec, clocked = plan.spec, Clocked(progress)
    calibration, held_out = read_calibration(plan, clocked), read_held_out(plan, clocked)
    clocked.stage("loading weights")
    loaded = load_network(spec, plan.weights, few(calibration))
    network = loaded.network
    clocked.stage("float reference", steps(held_out.images))
    layout = fast_layout(network, calibration.images)
    with laid_out(network, layout):
        float_outputs = forward(network, held_out.images, spec.outputs, clocked)
    if not plan.recipe.quantized:
        _check_finite(float_outputs, spec)
        clocked.stage("exporting the float graph")
        float_graph = _export_float(network, plan)
        return Prepared(
            portable=float_graph,
            float_graph=float_graph,
            table=None,
            calibration=calibration,
            held_out=held_out,
            float_outputs=float_outputs,
            fake_quantized_outputs=None,
            quantized=None,
            seconds=clocked.seconds(),
        )
    quantized, calibrated = _quantize(loaded, plan, calibration, layout, clocked)
    _check_finite(float_outputs, spec)  # after calibration, which can name the layer that it begins in
    clocked.stage("fake-quantized reference", steps(held_out.images))
    with laid_out(quantized, layout):
        fake_quantized = forward(quantized, held_out.images, spec.outputs, clocked)
    clocked.stage("exporting the portable graph")
    portable, float_graph = export_with_float(quantized, spec.input.name, spec.input.shape, spec.outputs)
    if plan.recipe.qat is not None:
        float_graph = _export_float(network, plan)  # fine-tuning moved the other one's weights
    return Prepared(
        portable=portable,
        float_graph=float_graph,
        table=calibrated.table,
        calibration=calibration,
        held_out=held_out,
        float_outputs=float_outputs,
        fake_quantized_outputs=fake_quantized,
        quantized=quantized,
        trials=calibrated.trials,
        compared=calibrated.compared,
        seconds=clocked.seconds(),
    )


def _quantize(
    loaded: LoadedNetwork, plan: Plan, calibration: Images, layout: torch.memory_format, progress: Progress
) -> tuple[nn.Module, Calibrated]:
    """The calibrated network, fine-tuned where the recipe says so, and its ranges."""
    recipe, digest = plan.recipe, plan.inputs.sample_list_sha256
    trained = recipe.calibrator == TRAINED
    quantized = insert_quantizers(loaded.network, plan.spec, recipe, trainable=trained or recipe.qat is not None)
    if trained:
        load_ranges(quantized, loaded.ranges, plan.weights)
        found = Calibrated(table=table_of(quantized, TRAINED, 0, digest))
    else:
        with laid_out(quantized, layout):
            found = calibrate_plan(quantized, loaded.network, plan, calibration, progress)
    if recipe.qat is not None:
        _fine_tune(quantized, recipe.qat, plan, progress)
        found = replace(found, table=table_of(quantized, TRAINED, found.table.samples, digest))
    return quantized, found


def _fine_tune(quantized: nn.Module, training: Training, plan: Plan, progress: Progress) -> None:
    data = TrainingData(
        dataset=plan.dataset,
        spec=plan.spec,
        workers=plan.workers,
        strict=plan.strict,
        cache=plan.image_cache,
        progress=progress,
    )
    images, _ = data.to_train(0.0, plan.inputs.seed)
    job = Job(
        training=training, images=images, validation=None, decision=plan.spec.decision, seed=plan.inputs.seed, run={}
    )

    def shown(epoch: int) -> Progress:
        progress.stage(f"fine-tuning, epoch {epoch}/{training.epochs}", job.steps)
        return progress

    fit(quantized, job, world=World(), shown=shown, keep=lambda _: None)


def _export_float(network: nn.Module, plan: Plan) -> ir.Model:
    folded, fusions = deepcopy(network), plan.spec.fusions
    if plan.spec.placement == "derived":
        derived = derive(folded, plan.spec.input.shape, plan.spec.name)
        folded, fusions = derived.network, derived.fusions
    fold_batchnorm(folded, fusions)
    return export(folded, plan.spec.input.name, plan.spec.input.shape, plan.spec.outputs)


def _check_finite(outputs: Outputs, spec: ModelSpec) -> None:
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise CalibrationError(
                f"{spec.name}: output {name} of the float network is not finite on held-out images; check the weights "
                "and the preprocessing"
            )
