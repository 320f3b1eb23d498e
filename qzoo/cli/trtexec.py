"""qzoo trtexec."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from qzoo.cli.logs import remark
from qzoo.cli.options import allow_untrusted, as_json
from qzoo.errors import UsageError

if TYPE_CHECKING:
    from qzoo.backends.trt.backend import TensorRT
    from qzoo.backends.trt.settings import Settings
    from qzoo.backends.trt.trtexec import Outcome, Request
    from qzoo.records import Target

LOGGER = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., object])

VERBOSITIES = {"none": "NONE", "layer_names_only": "LAYER_NAMES_ONLY", "detailed": "DETAILED"}
VALUELESS = {"true": True, "1": True, "false": False, "0": False}
UNITS = {"B": 2**-20, "K": 2**-10, "M": 1.0, "G": 2.0**10}
"""Of --memPoolSize, in MiB."""
NO_EFFECT = ("avgRuns", "device", "idleTime", "infStreams", "percentile", "sleepTime", "streams")
NO_EFFECT_FLAGS = (
    *("buildOnly", "dumpLayerInfo", "dumpProfile", "explicitBatch", "noDataTransfers", "noTF32", "separateProfileRun"),
    *("stronglyTyped", "threads", "useSpinWait"),
)
"""Words of trtexec's that change nothing here; each that is given is named. --stronglyTyped is always so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtexecObject:
    """`qzoo trtexec --json`. `files`: what was written, by the option that asked for it; `notices`: what wasn't done.

    `int8_convolutions` of `convolutions` are planned in INT8; null where the layers aren't told. `latency_ms`: the
    median of transfers and computation; null where nothing ran.
    """

    target: str
    files: dict[str, str]
    notices: tuple[str, ...]
    int8_convolutions: int | None
    convolutions: int | None
    latency_ms: float | None


class Trtexec(click.Command):
    """A command whose flags may be given a value, as trtexec's may: `--verbose=True`, `--fp16 false`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Flags with a value become flags without one, or nothing."""
        flags = {
            name
            for option in self.params
            if isinstance(option, click.Option) and (option.is_flag or option.count)
            for name in option.opts
        }
        words, rest = [], list(args)
        while rest:
            word = rest.pop(0)
            name, given, value = word.partition("=")
            if name not in flags:
                words.append(word)
                continue
            if not given and rest and rest[0].lower() in ("true", "false"):
                value = rest.pop(0)
            if value and value.lower() not in VALUELESS:
                raise click.BadParameter(f"{name} is a flag; write {name}, or {name}=True", ctx)
            if not value or VALUELESS[value.lower()]:
                words.append(name)
        return super().parse_args(ctx, words)


def _file(*names: str, says: str) -> Callable[[F], F]:
    return click.option(*names, type=click.Path(path_type=Path, dir_okay=False), help=says)


def _without_effect(command: F) -> F:
    for name in NO_EFFECT:
        command = click.option(f"--{name}", name, hidden=True)(command)
    for name in NO_EFFECT_FLAGS:
        command = click.option(f"--{name}", name, is_flag=True, hidden=True)(command)
    return command


@click.command(cls=Trtexec)
@_file("--onnx", says="The graph: any ONNX file.")
@_file("--saveEngine", "save_engine", says="Where the engine goes; FILE.json beside it says what it is.")
@_file("--loadEngine", "load_engine", says="Time this engine instead of building one; needs a GPU.")
@click.option("--minShapes", "min_shapes", metavar="NAME:DIMS,...", help="Smallest shapes, input:1x3x224x224.")
@click.option("--optShapes", "opt_shapes", metavar="NAME:DIMS,...", help="The shapes that it is tuned for.")
@click.option("--maxShapes", "max_shapes", metavar="NAME:DIMS,...", help="Largest shapes.")
@click.option("--shapes", metavar="NAME:DIMS,...", help="The shapes that it is timed at.")
@click.option("--fp16", is_flag=True, help="Convert the graph to fp16.")
@click.option("--int8", is_flag=True, help="Of a graph with QuantizeLinear: what it quantizes is INT8 in any case.")
@click.option("--best", is_flag=True, help="Both, as far as the graph allows.")
@click.option("--workspace", metavar="MIB", type=click.FloatRange(min=0, min_open=True), help="As --memPoolSize.")
@click.option(
    "--memPoolSize", "pools", metavar="workspace:SIZE", help="Memory for kernels, in MiB, or with B, K, M, G."
)
@click.option("--builderOptimizationLevel", "level", type=click.IntRange(0, 5), help="0 builds fast, 5 runs fast.")
@_file("--timingCacheFile", "timing_cache", says="Kernels' timings; full TensorRT only.")
@click.option(
    "--profilingVerbosity",
    "verbosity",
    type=click.Choice(tuple(VERBOSITIES)),
    default="detailed",
    show_default=True,
    help="What the engine tells of its layers.",
)
@click.option("--versionCompatible", "--vc", "version_compatible", is_flag=True, help="Full TensorRT only.")
@click.option(
    "--hardwareCompatibilityLevel",
    "compatibility",
    type=click.Choice(("none", "ampere+")),
    default="none",
    help="Full TensorRT only.",
)
@_file("--exportLayerInfo", "export_layer_info", says="The engine's layers, as JSON.")
@_file("--exportProfile", "export_profile", says="Each layer's time, as JSON; needs a GPU.")
@_file("--exportTimes", "export_times", says="Each call's times, as JSON; needs a GPU.")
@click.option("--skipInference", "skip_inference", is_flag=True, help="Build, and don't time.")
@click.option("--iterations", type=click.IntRange(min=1), default=10, show_default=True, help="Calls, at least.")
@click.option("--warmUp", "warm_up", type=float, default=200.0, show_default=True, help="Milliseconds before timing.")
@click.option("--duration", type=float, default=3.0, show_default=True, help="Seconds of timing, at least.")
@click.option("--useCudaGraph", "cuda_graph", is_flag=True, help="Time it through a CUDA graph.")
@click.option(
    "--flavour",
    type=click.Choice(("auto", "tensorrt", "tensorrt-rtx")),
    default="auto",
    show_default=True,
    help="Which SDK; 'auto': tensorrt where it works, else tensorrt-rtx.",
)
@click.option("--gpu", metavar="SM,...", help="tensorrt-rtx: the GPUs to build for. Default: this one, else all.")
@_without_effect
@allow_untrusted
@as_json
def command(
    flavour: str,
    gpu: str | None,
    allow_untrusted: bool,  # noqa: FBT001 - click's flags
    as_json: bool,  # noqa: FBT001
    **words: object,
) -> None:
    """Build an engine of any ONNX file, in the words of NVIDIA's trtexec.

    Takes trtexec's spelling, --key=value or --key value. Without a GPU the engine is built, its layers are told, and
    what takes a GPU (--exportProfile, --exportTimes) is named and left out.

    \b
    Examples:
      qzoo trtexec --onnx=q.onnx --saveEngine=q.trt --exportLayerInfo=q.json
      qzoo trtexec --onnx=q.onnx --saveEngine=q.trt --minShapes=input:1x3x32x32 --maxShapes=input:8x3x32x32
      qzoo trtexec --onnx=q.onnx --saveEngine=q.trt --fp16 --gpu sm89 --skipInference
    """
    from qzoo.backends.trt.trtexec import execute
    from qzoo.records import file_digest
    from qzoo.store import Store
    from qzoo.store.bundle import sidecar
    from qzoo.zoo.gate import admit_built

    store, load, save = Store.default(), words["load_engine"], words["save_engine"]
    if isinstance(load, Path):
        admit_built(load, store, allow_untrusted=allow_untrusted)
    idle = [name for name in (*NO_EFFECT, *NO_EFFECT_FLAGS) if words.pop(name)]
    backend, target = _target(flavour, gpu)
    outcome = execute(_request(words, target), backend, target)
    if isinstance(save, Path):
        store.origins.add(file_digest(sidecar(save)), f"{save.name} by trtexec for {target}", from_weights=False)
    for message in outcome.log:
        LOGGER.log(logging.INFO if message.severity <= 3 else logging.DEBUG, "%s: %s", backend.name, message.text)
    notices = (*outcome.notices, *(f"--{name} has no effect here" for name in idle if name != "stronglyTyped"))
    for notice in notices:
        remark(notice)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(_object(outcome, notices)), nl=False)
        return
    click.echo("\n".join(_lines(outcome)))


def _target(flavour: str, gpu: str | None) -> tuple[TensorRT, Target]:
    from qzoo.backends.trt.backend import TensorRT, TensorRTRTX

    full, rtx = TensorRT(), TensorRTRTX()
    backend = full if flavour == "tensorrt" or (flavour == "auto" and full.probe().works) else rtx
    if gpu is not None:
        return backend, backend.target_for(gpu)
    if backend.probe().works or backend is full:
        return backend, backend.target()
    everyone = [name for name in backend.loaded().architectures() if int(name[2:]) >= 80]  # sm75 has no float products
    return backend, backend.target_for("+".join(everyone))


def _request(words: dict[str, object], target: Target) -> Request:
    from qzoo.backends.trt.trtexec import Request

    settings = _settings(words, target)
    shapes = {
        f"{kind}shapes": _shapes(f"--{kind.replace('_', '')}Shapes", words.pop(f"{kind}shapes")) for kind in KINDS
    }
    return Request(settings=settings, **shapes, **words)  # type: ignore[arg-type]


KINDS = ("min_", "opt_", "max_", "")


def _settings(words: dict[str, object], target: Target) -> Settings:
    from qzoo.backends.trt.settings import Settings

    workspace, pools = words.pop("workspace"), words.pop("pools")
    return Settings(
        gpus=tuple(target.isa.split("+")),
        workspace_mib=_pool(str(pools)) if pools else workspace,  # type: ignore[arg-type]
        optimization_level=words.pop("level"),  # type: ignore[arg-type]
        version_compatible=bool(words.pop("version_compatible")),
        hardware_compatible=words.pop("compatibility") != "none",
        timing_cache=words.pop("timing_cache"),  # type: ignore[arg-type]
        verbosity=VERBOSITIES[str(words.pop("verbosity"))],
    )


def _pool(text: str) -> float:
    name, _, size = text.partition(":")
    number, unit = (size[:-1], size[-1].upper()) if size[-1:].upper() in UNITS else (size, "M")
    try:
        mib = float(number) * UNITS[unit]
    except ValueError:
        mib = 0.0
    if name != "workspace" or mib <= 0:
        raise UsageError(
            f"--memPoolSize {text}: write workspace:SIZE, in MiB or with B, K, M or G, such as workspace:1G"
        )
    return mib


def _shapes(option: str, text: object) -> dict[str, tuple[int, ...]]:
    """Of "input:1x3x224x224,mask:1x8"; a tensor without dimensions is "scalar"."""
    found = {}
    for part in str(text or "").split(","):
        if not part:
            continue
        name, _, dims = part.rpartition(":")
        sizes = [] if dims == "scalar" else dims.split("x")
        if not name or not all(size.isdecimal() for size in sizes):
            raise UsageError(f"{option}={text}: write NAME:DIMS, such as input:1x3x224x224, and commas between several")
        found[name.strip("'\"")] = tuple(map(int, sizes))
    return found


def _object(outcome: Outcome, notices: tuple[str, ...]) -> TrtexecObject:
    quantized, total = outcome.convolutions or (None, None)
    return TrtexecObject(
        target=str(outcome.target),
        files=outcome.files,
        notices=notices,
        int8_convolutions=quantized,
        convolutions=total,
        latency_ms=outcome.latency_ms,
    )


def _lines(outcome: Outcome) -> list[str]:
    lines = [f"built for {outcome.target}, {outcome.target.runtime} {outcome.target.version}"]
    lines += [f"  {word:16} {path}" for word, path in outcome.files.items()]
    if outcome.convolutions is not None and outcome.convolutions[1]:
        lines.append(f"  convolutions in INT8: {outcome.convolutions[0]} of {outcome.convolutions[1]}")
    if outcome.latency_ms is not None:
        lines.append(f"  median latency   {outcome.latency_ms:.4f} ms")
    return lines
