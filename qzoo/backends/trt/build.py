"""Lowered graph -> engine, through an SDK's builder. Needs a GPU for TensorRT, none for TensorRT-RTX."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from qzoo.backends.trt import layers, lint
from qzoo.backends.trt.sdk import Message, Sdk
from qzoo.errors import TargetError
from qzoo.records import LayerTable
from qzoo.spec import BatchProfile

LOGGER = logging.getLogger(__name__)

GPUS, BATCH = "compute_capabilities", "batch"
"""Keys of a build's config: "sm86+sm89" (none: the GPU of this machine), "min:opt:max"."""


def build_engine(sdk: Sdk, lowered: bytes, config: Mapping[str, str], out: Path) -> LayerTable | None:
    """Write an engine to `out`. Raises TargetError with the end of the SDK's log, UsageError for a wrong profile."""
    model = _read(sdk, lowered)
    profiles = profiles_of(model, BatchProfile(**dict(zip(("min", "opt", "max"), _numbers(config), strict=True))))
    with sdk.captured() as log:
        builder = _made(sdk, sdk.trt.Builder(sdk.logger), "a builder", log)
        # strong typing is TensorRT 11's only way and 10's by this flag: precisions are those of the graph
        strongly = 1 << int(sdk.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = _made(sdk, builder.create_network(strongly), "a network", log)
        parser = _made(sdk, sdk.trt.OnnxParser(network, sdk.logger), "an ONNX parser", log)
        lint.check(model, profiles, parser.supports_operator)
        if not parser.parse(lowered):
            raise sdk.failed(f"the parser refuses the graph: {_parser_errors(parser)}", log)
        settings = _settings(sdk, builder, config, log)
        _add_profiles(sdk, builder, settings, network, profiles, log)
        plan = builder.build_serialized_network(network, settings)
        if plan is None:
            raise sdk.failed("the engine could not be built", log)
    out.write_bytes(memoryview(plan))
    return _layers(model, log)


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


def _numbers(config: Mapping[str, str]) -> list[int]:
    return [int(part) for part in config[BATCH].split(":")]


def _read(sdk: Sdk, lowered: bytes) -> ir.Model:
    try:
        return ir.from_proto(onnx.load_from_string(lowered))
    except (DecodeError, ValueError, KeyError) as error:
        raise TargetError(
            f"{sdk.name}: can't read the graph: {' '.join(str(error).split())}; export it again"
        ) from error


def _settings(sdk: Sdk, builder: Any, config: Mapping[str, str], log: list[Message]) -> Any:  # noqa: ANN401
    settings = _made(sdk, builder.create_builder_config(), "a builder config", log)
    settings.profiling_verbosity = sdk.trt.ProfilingVerbosity.DETAILED
    gpus = [gpu for gpu in config.get(GPUS, "").split("+") if gpu]
    if gpus and sdk.ahead_of_time:
        settings.num_compute_capabilities = len(gpus)
        for place, gpu in enumerate(gpus):
            if gpu not in sdk.architectures():
                raise sdk.failed(f"it doesn't build for {gpu}, but for {', '.join(sdk.architectures())}", log)
            # without a slot it returns False, and the engine would silently be built for another GPU
            if not settings.set_compute_capability(getattr(sdk.trt.ComputeCapability, gpu.upper()), place):
                raise sdk.failed(f"compute capability {gpu} was not taken", log)
    return settings


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
    optimization = _made(sdk, builder.create_optimization_profile(), "an optimization profile", log)
    for name, profile in profiles.items():
        if name not in known:
            raise sdk.failed(f"the parsed network has no input {name!r}", log)
        optimization.set_shape(name, profile.min, profile.opt, profile.max)
    if not optimization or settings.add_optimization_profile(optimization) < 0:
        raise sdk.failed(f"the profile of {', '.join(profiles)} was not taken", log)


def _made(sdk: Sdk, thing: Any, what: str, log: list[Message]) -> Any:  # noqa: ANN401 - an SDK's object
    if thing is None:
        raise sdk.failed(f"{what} could not be made", log)
    return thing


def _parser_errors(parser: Any) -> str:  # noqa: ANN401
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}" for error in errors)


def _layers(model: ir.Model, log: list[Message]) -> LayerTable | None:
    told = next((message.text for message in log if message.text.startswith(layers.HEAD)), None)
    if told is None:
        LOGGER.warning("the builder's log has no layer table, so the bundle has none either")
        return None
    return layers.read_layers(told, model)
