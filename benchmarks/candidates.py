"""The engines that peers.py compares: each peer's and qzoo's, from the same float weights and calibration images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qzoo.measure import decide, sqnr_db
from qzoo.pipeline.assemble import Facts, build_engine, serialize
from qzoo.pipeline.forward import batches_of
from qzoo.pipeline.plan import Options, Plan, make_plan
from qzoo.pipeline.prepare import Prepared, prepare
from qzoo.pipeline.progress import Silent
from qzoo.records import encode
from qzoo.registry import Registry
from qzoo.store import Store

THREADS = os.cpu_count() or 1
Call = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Candidate:
    """An engine to time. `kind` says how timing.py loads `path`: "ort", "ov" (a graph, with `hint`) or "qzoo"."""

    name: str
    kind: str
    path: str
    runtime: str
    ours: bool
    hint: str = ""
    sqnr_db: float = 0.0


def candidates(model: str, folder: Path, samples: int) -> list[Candidate]:
    """Build every engine of a model in `folder`, and measure each one's centred SQNR to the float network."""
    plans = {name: _plan(model, name, samples) for name in ("onnxruntime", "openvino")}
    shared = plans["onnxruntime"]
    prepared = prepare(shared, Silent())
    graph = folder / "float.onnx"
    graph.write_bytes(serialize(prepared.float_graph))
    images = [batch.numpy() for batch in batches_of(prepared.calibration)]
    made = [
        Candidate("ort fp32", "ort", str(graph), "onnxruntime", ours=False),
        Candidate("ort quantize_static", "ort", str(_quantize_static(graph, images)), "onnxruntime", ours=False),
        Candidate("ov f32", "ov", str(graph), "openvino", ours=False, hint="f32"),
        Candidate("ov bf16", "ov", str(graph), "openvino", ours=False, hint="bf16"),
        Candidate("ov nncf", "ov", str(_nncf(graph, images)), "openvino", ours=False),
        *(_qzoo(plan, prepared, folder / name) for name, plan in plans.items()),
    ]
    return [_with_sqnr(candidate, shared, prepared) for candidate in made]


def load(candidate: Candidate) -> Call:
    """A function of one batch (N, C, H, W), all with the same number of threads."""
    if candidate.kind == "ort":
        return _load_ort(candidate.path)
    if candidate.kind == "ov":
        return _load_openvino(candidate.path, candidate.hint)
    from qzoo.engine import load as load_engine

    engine = load_engine(candidate.path, threads=THREADS, allow_untrusted=True)  # built by _qzoo, in no store
    return lambda batch: next(iter(engine.run({engine.record.inputs[0].name: batch}).values()))


def _plan(model: str, target: str, samples: int) -> Plan:
    options = Options(model=model, target=target, weights=_weights(model), calib_samples=samples)
    return make_plan(options, Registry.load(), Store.default().home / "cache")


def _weights(model: str) -> str:
    spec = Registry.load().model(model).spec
    return "auto" if any(source.kind == "shipped" for source in spec.weights) else "random"


def _quantize_static(graph: Path, images: list[NDArray[np.float32]]) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rest: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
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
    return out


def _nncf(graph: Path, images: list[NDArray[np.float32]]) -> Path:
    import nncf
    import openvino

    singles = [image[None] for batch in images for image in batch]
    quantized = nncf.quantize(openvino.Core().read_model(graph), nncf.Dataset(singles), subset_size=len(singles))
    out = graph.with_name("nncf.xml")
    openvino.save_model(quantized, out, compress_to_fp16=False)
    return out


def _qzoo(plan: Plan, prepared: Prepared, folder: Path) -> Candidate:
    folder.mkdir()
    facts = Facts(
        model=plan.spec.name,
        preprocess=plan.spec.input.preprocess,
        decision=plan.spec.decision,
        labels=plan.inputs.labels,
    )
    lowered = plan.backend.lower(prepared.portable, plan.recipe, plan.target)
    path, record, _ = build_engine(lowered, "int8", plan.backend, plan.target, facts, folder, plan.recipe.batch)
    path.with_name(f"{path.name}.json").write_bytes(encode(record))
    return Candidate(f"qzoo {plan.backend.name}", "qzoo", str(path), plan.backend.name, ours=True)


def _with_sqnr(candidate: Candidate, plan: Plan, prepared: Prepared) -> Candidate:
    call, images = load(candidate), prepared.held_out.images
    outputs = np.concatenate([call(images[i : i + 8]).copy() for i in range(0, len(images), 8)])
    float_scores = decide(prepared.float_outputs, plan.spec.decision)
    return replace(candidate, sqnr_db=sqnr_db(float_scores, outputs))


def _load_ort(path: str) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = THREADS, 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"input": batch})[0]


def _load_openvino(path: str, hint: str) -> Call:
    import openvino

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(THREADS)}
    if hint:
        config["INFERENCE_PRECISION_HINT"] = hint
    request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()
    return lambda batch: request.infer({0: batch}, share_inputs=True)[0]
