"""What trtexec does: any ONNX file -> an engine, the layers in it, and on a GPU its times. See `qzoo trtexec`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from qzoo.backends.trt import lint, reports
from qzoo.backends.trt.backend import TensorRT
from qzoo.backends.trt.build import Plan, build_plan, read_graph
from qzoo.backends.trt.cuda import Cuda
from qzoo.backends.trt.gpu import cuda_runtime, why_no_gpu
from qzoo.backends.trt.run import Session, read_plan
from qzoo.backends.trt.sdk import Message, Sdk
from qzoo.backends.trt.settings import Settings
from qzoo.errors import TargetUnavailable, TargetUnsupported, UsageError
from qzoo.graph.edit import QUANTIZE
from qzoo.graph.half import LEAST_OPSET, QDQ_OPSET, to_half
from qzoo.records import PlanRecord, Target, decode, digest_of, encode
from qzoo.writing import write_file

LOGGER = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for, in trtexec's words. Times in trtexec's units: `warm_up` in ms, `duration` in seconds."""

    settings: Settings
    onnx: Path | None = None
    load_engine: Path | None = None
    save_engine: Path | None = None
    min_shapes: Shapes = field(default_factory=dict)
    opt_shapes: Shapes = field(default_factory=dict)
    max_shapes: Shapes = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)
    fp16: bool = False
    int8: bool = False
    best: bool = False
    export_profile: Path | None = None
    export_layer_info: Path | None = None
    export_times: Path | None = None
    skip_inference: bool = False
    iterations: int = 10
    warm_up: float = 200.0
    duration: float = 3.0
    cuda_graph: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was made: files by the option that asked for each, and what was done otherwise than asked.

    `latency_ms` is the median of transfers and computation on the GPU; None where nothing ran.
    """

    target: Target
    files: dict[str, str]
    notices: tuple[str, ...]
    convolutions: tuple[int, int] | None
    latency_ms: float | None
    log: tuple[Message, ...]


def execute(request: Request, backend: TensorRT, target: Target) -> Outcome:
    """Build or load an engine, write what is asked for, and time it where a GPU is.

    Raises UsageError, TargetError, or TargetUnavailable where all that is asked for needs a GPU and there is none.
    """
    if (request.onnx is None) == (request.load_engine is None):
        raise UsageError("give --onnx or --loadEngine, and not both")
    lacking = why_no_gpu()
    if request.load_engine is not None:
        record = read_plan_record(request.load_engine)
        plan = Plan(read_plan(request.load_engine, record.sha256), record.layers, ())
        if not backend.runs(record.target):
            raise TargetUnavailable(
                f"{request.load_engine} is for {record.target} {record.target.version} and can't run here: "
                f"{lacking or 'another GPU or version is here'}"
            )
        return _finish(request, backend.loaded(), record.target, plan, [])
    if lacking and request.save_engine is None and request.export_layer_info is None:
        raise TargetUnavailable(f"nothing to keep: timing needs a GPU, and {lacking}; give --saveEngine")
    return _build(request, backend, target, lacking)


def _build(request: Request, backend: TensorRT, target: Target, lacking: str) -> Outcome:
    sdk, notices = backend.loaded(), list[str]()
    graph, model = converted(_read(request.onnx), sdk, request, notices)
    profiles = profiles_of(model, request, notices)
    plan = build_plan(sdk, graph, model, profiles, request.settings)
    files = {}
    if request.save_engine is not None:
        record = PlanRecord(
            target=target,
            sha256=digest_of(plan.data),
            size_bytes=len(plan.data),
            graph_sha256=digest_of(graph),
            profiles={name: (one.min, one.opt, one.max) for name, one in profiles.items()},
            config=request.settings.told(),
            layers=plan.layers,
        )
        write_file(request.save_engine, plan.data)
        write_file(_record_of(request.save_engine), encode(record))
        files["saveEngine"] = str(request.save_engine)
    if lacking:
        return _planned(request, target, plan, notices, files, lacking)
    return _finish(request, sdk, target, plan, notices, files)


def _planned(
    request: Request, target: Target, plan: Plan, notices: list[str], files: dict[str, str], lacking: str
) -> Outcome:
    """What a machine without a GPU can tell."""
    if request.export_layer_info is not None:
        if plan.layers is None:
            raise UsageError(
                "--exportLayerInfo: without a GPU the layers are told with --profilingVerbosity=detailed only"
            )
        write_file(request.export_layer_info, reports.layer_info(plan.layers))
        files["exportLayerInfo"] = str(request.export_layer_info)
    for word, path in (("exportProfile", request.export_profile), ("exportTimes", request.export_times)):
        if path is not None:
            notices.append(f"--{word}: {path} was not written, as it takes a GPU to time the engine: {lacking}")
    if not request.skip_inference:
        notices.append(f"inference was skipped: {lacking}")
    return _outcome(target, plan, notices, files, None)


def _finish(
    request: Request, sdk: Sdk, target: Target, plan: Plan, notices: list[str], files: dict[str, str] | None = None
) -> Outcome:
    """On a GPU. Not executed by this project yet."""
    files = {} if files is None else files
    session = Session(sdk, plan.data, Cuda(cuda_runtime()), graphs=request.cuda_graph)
    given = {**request.opt_shapes, **request.shapes}
    session.reshape({name: given.get(name, shape) for name, shape in session.largest().items()})
    if request.export_layer_info is not None:
        write_file(request.export_layer_info, session.inspect().encode())
        files["exportLayerInfo"] = str(request.export_layer_info)
    if request.skip_inference:
        return _outcome(target, plan, notices, files, None)
    traces = session.trace(request.iterations, request.duration, request.warm_up / 1e3)
    if request.export_times is not None:
        write_file(request.export_times, reports.times(traces))
        files["exportTimes"] = str(request.export_times)
    if request.export_profile is not None:
        write_file(request.export_profile, reports.profile(session.profile(request.iterations), request.iterations))
        files["exportProfile"] = str(request.export_profile)
    return _outcome(target, plan, notices, files, reports.median_latency(traces))


def _outcome(
    target: Target, plan: Plan, notices: list[str], files: dict[str, str], latency_ms: float | None
) -> Outcome:
    return Outcome(
        target=target,
        files=files,
        notices=tuple(notices),
        convolutions=None if plan.layers is None else plan.layers.coverage("Conv", "ConvTranspose"),
        latency_ms=latency_ms,
        log=plan.log,
    )


def converted(graph: bytes, sdk: Sdk, request: Request, notices: list[str]) -> tuple[bytes, ir.Model]:
    """The graph in the precision that trtexec's older flags ask for; as it is without any.

    Raises TargetUnsupported for --int8 of a graph without quantizers: its ranges would have to be invented.
    """
    model = read_graph(sdk, graph)
    quantized = any(node.op_type == QUANTIZE for node in model.graph)
    if request.int8 and not quantized:
        raise TargetUnsupported(
            "--int8: the graph has no QuantizeLinear, and TensorRT has no calibrator any more; export one with "
            "`qzoo export MODEL --form portable`, or leave --int8 out"
        )
    if request.int8 or (request.best and quantized):
        notices.append("--int8 isn't a flag any more: what the graph's QuantizeLinear nodes quantize is INT8")
    if request.best and not quantized:
        notices.append("--best: the graph has no QuantizeLinear, so fp16 is the best that it can be converted to")
    if not (request.fp16 or request.best):
        return graph, model
    notices.append("--fp16 isn't a flag any more: the graph was converted to fp16, what overflows there stays in fp32")
    model = to_half(_modern(graph, model))
    return ir.to_proto(model).SerializeToString(deterministic=True), model


def _modern(graph: bytes, model: ir.Model) -> ir.Model:
    if model.opset_imports.get("", 0) >= LEAST_OPSET:
        return model
    proto = onnx.version_converter.convert_version(onnx.load_from_string(graph), QDQ_OPSET)
    return ir.from_proto(proto)


def profiles_of(model: ir.Model, request: Request, notices: list[str]) -> dict[str, lint.Profile]:
    """The profile of every input that is dynamic or named. Where one of the three is left out another stands for it.

    As trtexec does, a dynamic dimension without any is 1, which is said.
    """
    named = [request.min_shapes, request.opt_shapes, request.max_shapes, request.shapes]
    inputs = {str(value.name): value for value in model.graph.inputs}
    found = {}
    for name in dict.fromkeys(name for shapes in named for name in shapes):
        opt = request.opt_shapes.get(name) or request.shapes.get(name)
        opt = opt or request.max_shapes.get(name) or request.min_shapes[name]
        low, high = request.min_shapes.get(name, opt), request.max_shapes.get(name, opt)
        found[name] = lint.Profile(low, opt, high)
    for name, value in inputs.items():
        dims = tuple(value.shape or ())
        if name not in found and any(not isinstance(dim, int) for dim in dims):
            ones = tuple(dim if isinstance(dim, int) else 1 for dim in dims)
            notices.append(f"input {name} is dynamic and no shape was given: {'x'.join(map(str, ones))} is taken")
            found[name] = lint.Profile(ones, ones, ones)
    return found


def read_plan_record(engine: Path) -> PlanRecord:
    """An engine's sidecar. Raises UsageError where it has none, IntegrityError where it is damaged."""
    path = _record_of(engine)
    if not path.is_file():
        raise UsageError(
            f"--loadEngine {engine}: no {path.name} beside it that says what its bytes must be, and to load an unknown "
            "engine is to run unknown native code; build it with `qzoo trtexec --saveEngine`"
        )
    return decode(path.read_bytes(), PlanRecord, path)


def _record_of(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


def _read(path: Path | None) -> bytes:
    if path is None:
        raise UsageError("give --onnx")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--onnx {path} can't be read: {error.strerror}") from error
