"""Lowered graph -> engine, through an SDK's builder. Needs a GPU for TensorRT, none for TensorRT-RTX."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from qzoo.backends.trt import layers, lint
from qzoo.backends.trt.gpu import why_no_gpu
from qzoo.backends.trt.sdk import Message, Sdk, made
from qzoo.backends.trt.settings import Settings, configure, keep_timing_cache
from qzoo.errors import TargetError
from qzoo.records import LayerTable
from qzoo.spec import BatchProfile

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A serialized engine, its layers where the builder told them, and its log."""

    data: bytes
    layers: LayerTable | None
    log: tuple[Message, ...]


def build_engine(sdk: Sdk, lowered: bytes, config: Mapping[str, str], out: Path) -> LayerTable | None:
    """Write an engine to `out`, as a build's config says; its "batch" is "min:opt:max".

    Raises TargetError with the end of the SDK's log, UsageError for a wrong profile.
    """
    model = read_graph(sdk, lowered)
    low, opt, high = map(int, config["batch"].split(":"))
    profiles = profiles_of(model, BatchProfile(min=low, opt=opt, max=high))
    plan = build_plan(sdk, lowered, model, profiles, Settings.of(config))
    out.write_bytes(plan.data)
    return plan.layers


def build_plan(
    sdk: Sdk, graph: bytes, model: ir.Model, profiles: Mapping[str, lint.Profile], settings: Settings
) -> Plan:
    """Check, parse and build a graph; `model` is the same one. Raises TargetError with the end of the SDK's log."""
    with sdk.captured() as log:
        builder = made(sdk, sdk.trt.Builder(sdk.logger), "a builder", log)
        # strong typing is TensorRT 11's only way and 10's by this flag: precisions are those of the graph
        strongly = 1 << int(sdk.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = made(sdk, builder.create_network(strongly), "a network", log)
        parser = made(sdk, sdk.trt.OnnxParser(network, sdk.logger), "an ONNX parser", log)
        lint.check(model, profiles, parser.supports_operator)
        if not parser.parse(graph):
            raise sdk.failed(f"the parser refuses the graph: {_parser_errors(parser)}", log)
        config = configure(sdk, builder, settings, log)
        _add_profiles(sdk, builder, config, network, profiles, log)
        data = builder.build_serialized_network(network, config)
        if data is None:
            raise sdk.failed("the engine could not be built", log)
        keep_timing_cache(sdk, config, settings)
    plan = bytes(memoryview(data))
    told = _layers(sdk, plan, model, log) if settings.verbosity == "DETAILED" else None
    return Plan(plan, told, tuple(log))


def profiles_of(model: ir.Model, batch: BatchProfile) -> dict[str, lint.Profile]:
    """The batch profile as shapes of every input whose first dimension is dynamic, the others as the graph says.

    A dimension behind the first that is dynamic too has no size here, and is left to `lint` to name.
    """
    found = {}
    for value in model.graph.inputs:
        first, *rest = value.shape or (None,)
        if not isinstance(first, int) and all(isinstance(dim, int) for dim in rest):
            behind = tuple(int(str(dim)) for dim in rest)
            low, opt, high = ((size, *behind) for size in (batch.min, batch.opt, batch.max))
            found[str(value.name)] = lint.Profile(low, opt, high)
    return found


def read_graph(sdk: Sdk, graph: bytes) -> ir.Model:
    """Raises TargetError for what is no ONNX graph."""
    try:
        return ir.from_proto(onnx.load_from_string(graph))
    except (DecodeError, ValueError, KeyError) as error:
        raise TargetError(
            f"{sdk.name}: can't read the graph: {' '.join(str(error).split())}; export it again"
        ) from error


def _add_profiles(
    sdk: Sdk,
    builder: Any,  # noqa: ANN401
    settings: Any,  # noqa: ANN401
    network: Any,  # noqa: ANN401
    profiles: Mapping[str, lint.Profile],
    log: list[Message],
) -> None:
    if not profiles:
        return
    known = {network.get_input(index).name for index in range(network.num_inputs)}
    optimization = made(sdk, builder.create_optimization_profile(), "an optimization profile", log)
    for name, profile in profiles.items():
        if name not in known:
            raise sdk.failed(f"the parsed network has no input {name!r}", log)
        optimization.set_shape(name, profile.min, profile.opt, profile.max)
    if not optimization or settings.add_optimization_profile(optimization) < 0:
        raise sdk.failed(f"the profile of {', '.join(profiles)} was not taken", log)


def _parser_errors(parser: Any) -> str:  # noqa: ANN401
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}" for error in errors)


def _layers(sdk: Sdk, plan: bytes, model: ir.Model, log: list[Message]) -> LayerTable | None:
    told = next((message.text for message in log if message.text.startswith(layers.HEAD)), None)
    if told is not None:
        return layers.read_layers(told, model)
    if why_no_gpu():
        LOGGER.warning("the builder's log has no layer table, so the bundle has none either")
        return None
    return inspected(sdk, plan, model)


def inspected(sdk: Sdk, plan: bytes, model: ir.Model) -> LayerTable:
    """The layers of an engine that was just built, by its inspector; needs a GPU. Raises TargetError."""
    with sdk.captured() as log:
        runtime = made(sdk, sdk.trt.Runtime(sdk.logger), "a runtime", log)
        engine = made(sdk, runtime.deserialize_cuda_engine(plan), "the engine", log)
        inspector = made(sdk, engine.create_engine_inspector(), "an engine inspector", log)
        text = str(inspector.get_engine_information(sdk.trt.LayerInformationFormat.JSON))
    return layers.read_inspector(text, model)
