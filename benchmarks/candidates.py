"""The engines that peers.py compares: each peer's and qzoo's, from the same float weights and calibration images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from layers import slowest
from loading import Array, Candidate, load

from qzoo.measure import accuracy, decide, sqnr_db
from qzoo.pipeline.assemble import build_engine, serialize
from qzoo.pipeline.autotune import autotune
from qzoo.pipeline.build import facts_of
from qzoo.pipeline.forward import few
from qzoo.pipeline.network import load_network
from qzoo.pipeline.plan import Options, Plan, make_plan
from qzoo.pipeline.prepare import Prepared, prepare
from qzoo.pipeline.progress import Silent
from qzoo.records import encode
from qzoo.registry import Registry
from qzoo.store import Store

RUNTIMES = ("onnxruntime", "openvino")
BATCH = 16
"""Images at a time that the peers calibrate with."""


@dataclass(frozen=True)
class Zoo:
    """One model, prepared once for all its engines, in a folder of its own."""

    plan: Plan
    prepared: Prepared
    folder: Path
    options: Options

    @property
    def float_graph(self) -> Path:
        return self.folder / "float.onnx"


def open_zoo(model: str, folder: Path, samples: int) -> Zoo:
    """Prepare a model: trained weights where some ship with qzoo, else random ones with BatchNorm statistics."""
    registry = Registry.load()
    shipped = any(source.kind == "shipped" for source in registry.model(model).spec.weights)
    weights = "auto" if shipped else "random"
    options = Options(model=model, target="onnxruntime", weights=weights, calib_samples=samples)
    plan = make_plan(options, registry, Store.default().home / "cache")
    zoo = Zoo(plan, prepare(plan, Silent()), folder, options)
    zoo.float_graph.write_bytes(serialize(zoo.prepared.float_graph))
    return zoo


def peers(zoo: Zoo) -> list[Candidate]:
    """The peers' engines, float and INT8, with their fidelity."""
    calibration = zoo.prepared.calibration.images
    images = [calibration[i : i + BATCH] for i in range(0, len(calibration), BATCH)]
    graph = str(zoo.float_graph)
    made = [
        Candidate("ort fp32", "ort", graph, "onnxruntime", ours=False),
        Candidate(
            "ort quantize_static",
            "ort",
            _quantize_static(zoo.float_graph, images),
            "onnxruntime",
            ours=False,
            int8=True,
        ),
        Candidate("ov f32", "ov", graph, "openvino", ours=False, hint="f32"),
        Candidate("ov bf16", "ov", graph, "openvino", ours=False, hint="bf16"),
        Candidate("ov nncf", "ov", _nncf(zoo.float_graph, images, ""), "openvino", ours=False, int8=True),
        Candidate("ov nncf mixed", "ov", _nncf(zoo.float_graph, images, "mixed"), "openvino", ours=False, int8=True),
        Candidate("torch.compile", "torch", _exported(zoo), "torch", ours=False),
    ]
    return [found for candidate in made if (found := _judged(candidate, zoo)) is not None]


def recipes(zoo: Zoo) -> list[Candidate]:
    """qzoo's engines as the model's recipes say, one a runtime."""
    made = []
    for runtime in RUNTIMES:
        options = replace(zoo.options, target=runtime)
        plan = make_plan(options, Registry.load(), Store.default().home / "cache")
        folder = zoo.folder / runtime
        folder.mkdir(exist_ok=True)
        lowered = plan.backend.lower(zoo.prepared.portable, plan.recipe, plan.target)
        path, record, _ = build_engine(lowered, plan.recipe, plan.backend, plan.target, facts_of(plan), folder)
        path.with_name(f"{path.name}.json").write_bytes(encode(record))
        made.append(Candidate(f"qzoo {runtime}", "qzoo", str(path), runtime, ours=True, int8=True))
    return [found for candidate in made if (found := _judged(candidate, zoo)) is not None]


@dataclass(frozen=True)
class Tuned:
    """The engine that --autotune keeps at a batch, all that it measured, and the layers that take the time."""

    kept: Candidate
    tried: list[dict[str, str | float | None]]
    slowest: list[dict[str, str | float]]


def tuned(zoo: Zoo, batch: int) -> Tuned:
    """Run --autotune at a batch, in a store of its own."""
    options = replace(zoo.options, target="auto", autotune="quick", batch_size=batch)
    store = Store(zoo.folder / f"home-{batch}")
    kept = autotune(options, Registry.load(), store)
    record = kept.bundle.record
    runtime = kept.plan.backend.name
    quantized = kept.plan.recipe.quantized
    candidate = Candidate("qzoo autotune", "qzoo", str(kept.bundle.engine), runtime, ours=True, int8=quantized)
    found = _judged(replace(candidate, hint=f"{runtime} {record.precision}"), zoo)
    if found is None:
        raise RuntimeError(f"the engine that --autotune kept for {record.model} does not run")
    tried = [
        {
            "target": one.target,
            "precision": one.precision,
            "variant": one.variant,
            "latency_ms": one.latency_ms,
            "sqnr_db": None if one.fidelity is None else one.fidelity.sqnr_db,
            "kept": one.chosen,
        }
        for one in kept.bundle.measurement.candidates
    ]
    images = np.resize(zoo.prepared.held_out.images, (batch, *zoo.prepared.held_out.images.shape[1:]))
    return Tuned(found, tried, slowest(kept.bundle.path / "lowered.onnx", runtime, dict(record.config), images))


def _judged(candidate: Candidate, zoo: Zoo) -> Candidate | None:
    """With its centred SQNR to the float network, and what it gets right; None, and why on stderr, if it can't run."""
    images, names = zoo.prepared.held_out.images, zoo.plan.spec.outputs
    try:
        call = load(candidate)
        parts = [[output.copy() for output in call(images[i : i + 8])] for i in range(0, len(images), 8)]
    except Exception as error:  # a peer may fail in any way, and is then left out by name
        if candidate.ours:
            raise
        print(f"{zoo.plan.spec.name}: {candidate.name} left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    outputs = dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    decision = zoo.plan.spec.decision
    scores, labels = decide(outputs, decision), zoo.prepared.held_out.labels
    found = replace(candidate, sqnr_db=sqnr_db(decide(zoo.prepared.float_outputs, decision), scores))
    if labels is None or not zoo.plan.trained:
        return found
    right = accuracy(scores, labels)
    return replace(found, correct=right.correct, total=right.total)


def _exported(zoo: Zoo) -> str:
    network = load_network(zoo.plan.spec, zoo.plan.weights, few(zoo.prepared.calibration)).network
    example = torch.from_numpy(zoo.prepared.held_out.images[:2])
    batch = torch.export.Dim("N", min=1, max=64)
    out = zoo.folder / "float.pt2"
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},)), out)
    return str(out)


def _quantize_static(graph: Path, images: list[Array]) -> str:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest: Iterator[Array] = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            batch = next(self._rest, None)
            return None if batch is None else {"input": batch}

    prepared, out = graph.with_name("pre.onnx"), graph.with_name("quantize_static.onnx")
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return str(out)


def _nncf(graph: Path, images: list[Array], preset: str) -> str:
    import nncf
    import openvino

    singles = [image[None] for batch in images for image in batch]
    chosen = {"preset": nncf.QuantizationPreset.MIXED} if preset else {}
    model = openvino.Core().read_model(graph)
    with redirect_stdout(sys.stderr):  # where its progress bar would go
        quantized = nncf.quantize(model, nncf.Dataset(singles), subset_size=len(singles), **chosen)
    out = graph.with_name(f"nncf{preset}.xml")
    openvino.save_model(quantized, out, compress_to_fp16=False)
    return str(out)
