"""OpenVINO on the CPU. Its engine is the exported compiled blob."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qzoo.backends import cpu
from qzoo.backends.base import check_target, checked_inputs, installed_version, required_version
from qzoo.errors import TargetError, TargetUnsupported
from qzoo.hookspecs import Backend, Engine
from qzoo.records import EngineRecord, Probe, Target
from qzoo.spec import Precision, Recipe, Role

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import openvino
    from numpy.typing import NDArray

    from qzoo.hookspecs import Arrays


class OpenVINO(Backend):
    """Q/DQ graphs; what is not quantized runs in bf16 where the CPU has it, as OpenVINO does by default."""

    name: ClassVar[str] = "openvino"
    sdk: ClassVar[str] = "openvino"
    roles: ClassVar[tuple[Role, ...]] = ("input", "weight", "skip", "branch")
    suffix: ClassVar[str] = ".blob"
    float_precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "bf16")

    def probe(self) -> Probe:
        """Whether OpenVINO is installed."""
        return installed_version(self.sdk)

    def target(self) -> Target:
        """This machine's CPU, within ONEDNN_MAX_CPU_ISA. Raises TargetUnavailable."""
        flags, limit = cpu.cpu_flags(), cpu.onednn_limit(os.environ)
        level, vnni = cpu.isa(flags, limit)
        level += "+bf16" if cpu.bf16(flags, limit) else ""
        return Target(runtime=self.name, isa=level, version=required_version(self), vnni=vnni)

    def check_precision(self, precision: Precision) -> None:
        """fp32 and int8 everywhere; bf16 and fp16 where the CPU has instructions for them."""
        flags, limit = cpu.cpu_flags(), cpu.onednn_limit(os.environ)
        lacking = {
            "bf16": not cpu.bf16(flags, limit),
            "fp16": not cpu.fp16(flags, limit),
            "int8+fp16": not cpu.fp16(flags, limit),
        }
        if lacking.get(precision):
            instead = "int8, whose float parts run in bf16" if cpu.bf16(flags, limit) else "fp32 or int8"
            raise TargetUnsupported(
                f"target {self.target()}: this CPU has no {precision.removeprefix('int8+')} arithmetic; "
                f"use --precision {instead}"
            )

    def lower(self, portable: ir.Model, recipe: Recipe, target: Target) -> ir.Model:
        """uint8 with zero point 0 after a ReLU, else 128. Raises GraphError."""
        from qzoo.graph import biases, bounded, grids, groups, lower, pooling

        passes = [
            lower.keep_roles(recipe.roles),
            groups.keep_float(recipe.float_modules),
            lower.narrow_weights(target.weight_max),
            grids.carry_grids,
            grids.round_once,
            lower.quantize_before_moves,
            pooling.pool_maxima,
            lower.unsigned_non_negative,
            bounded.shift_bounded,
            lower.offset_signed,
            lower.absorb_clamps,
            biases.add_biases(biases.TINY_HALF if recipe.precision == "int8+fp16" else biases.TINY),
        ]
        return lower.run_passes(portable, [*(passes if recipe.quantized else []), lower.slim])

    def config(self, precision: Precision, threads: int | None = None) -> dict[str, str]:
        """One stream tuned for latency. Without the precision hint an imported f32 engine comes back as bf16."""
        half = {"bf16": "bf16", "fp16": "f16", "int8+fp16": "f16"}.get(precision, "f32")
        if precision == "int8" and cpu.bf16(cpu.cpu_flags(), cpu.onednn_limit(os.environ)):
            half = "bf16"
        hints = {"INFERENCE_PRECISION_HINT": half, "PERFORMANCE_HINT": "LATENCY"}
        return hints if threads is None else {**hints, "INFERENCE_NUM_THREADS": str(threads)}

    def fixed(self, target: Target, recipe: Recipe) -> dict[str, str]:  # noqa: ARG002 - any target
        """The precision of what an INT8 engine computes in float, where its recipe settles that."""
        return {"INFERENCE_PRECISION_HINT": "f32"} if recipe.float_parts == "fp32" else {}

    def build(self, lowered: bytes, config: Mapping[str, str], out: Path) -> None:
        """Compile and export, in a process of its own. Raises TargetError where OpenVINO can't.

        OpenVINO numbers the nodes it makes through the life of a process, and a blob holds the numbers: only in a new
        process do the same graph and config give the same bytes.
        """
        command = [sys.executable, "-P", "-c", _COMPILE, json.dumps(dict(config)), str(out)]
        child = subprocess.run(command, input=lowered, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if child.returncode != 0:
            out.unlink(missing_ok=True)
            said = child.stderr.decode(errors="replace").strip().splitlines()
            raise TargetError(f"openvino: {said[-1] if said else f'compiling ended with status {child.returncode}'}")

    def load(self, engine: Path, record: EngineRecord, threads: int | None = None) -> Engine:
        """Import an engine with the config it was compiled with. Raises EngineMismatch."""
        check_target(self, record)
        config = {**record.config, **({} if threads is None else {"INFERENCE_NUM_THREADS": str(threads)})}
        with _mapped_errors():
            return _OpenVINOEngine(record, _core().import_model(BytesIO(engine.read_bytes()), "CPU", config))


_COMPILE = "import sys; from qzoo.backends.ov import compile_blob; compile_blob(*sys.argv[1:])"


def compile_blob(config: str, out: str) -> None:
    """Compile the graph on stdin with a JSON config and write its blob: what `OpenVINO.build` runs as a process."""
    try:
        core = _core()
        compiled = core.compile_model(core.read_model(sys.stdin.buffer.read()), "CPU", json.loads(config))
        Path(out).write_bytes(compiled.export_model().getvalue())
    except RuntimeError as error:
        sys.exit(_reason(str(error)))


class _OpenVINOEngine(Engine):
    def __init__(self, record: EngineRecord, compiled: openvino.CompiledModel) -> None:
        self.record = record
        self._request = compiled.create_infer_request()
        # OpenVINO's results look their names up in every call, which takes 4 us for each output
        names = [info.name for info in record.outputs]
        self._places = {
            name: place for place, one in enumerate(compiled.outputs) for name in names if name in one.names
        }

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        with _mapped_errors():
            results = self._request.infer(checked_inputs(self.record, inputs), share_inputs=True).to_tuple()
        return {info.name: results[self._places[info.name]] for info in self.record.outputs}


def _core() -> openvino.Core:
    import openvino

    return openvino.Core()


@contextmanager
def _mapped_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # OpenVINO raises its ov::Exception as this
        raise TargetError(f"openvino: {_reason(str(error))}") from error


def _reason(message: str) -> str:
    # without the lines that say where in OpenVINO's sources it was raised
    lines = [line.strip() for line in message.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Exception from ", "Check "))) or "failed"
