"""OpenVINO on the CPU. Its engine is the exported compiled blob."""

from __future__ import annotations

import os
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
        from qzoo.graph import lower

        passes = [
            lower.keep_roles(recipe.roles),
            lower.narrow_weights(target.weight_max),
            lower.quantize_before_moves,
            lower.unsigned_non_negative,
            lower.offset_signed,
            lower.absorb_relu,
        ]
        return lower.run_passes(portable, [*(passes if recipe.quantized else []), lower.slim])

    def config(self, precision: Precision, threads: int | None = None) -> dict[str, str]:
        """One stream tuned for latency. Without the precision hint an imported f32 engine comes back as bf16."""
        half = {"bf16": "bf16", "fp16": "f16", "int8+fp16": "f16"}.get(precision, "f32")
        if precision == "int8" and cpu.bf16(cpu.cpu_flags(), cpu.onednn_limit(os.environ)):
            half = "bf16"
        hints = {"INFERENCE_PRECISION_HINT": half, "PERFORMANCE_HINT": "LATENCY"}
        return hints if threads is None else {**hints, "INFERENCE_NUM_THREADS": str(threads)}

    def build(self, lowered: bytes, config: Mapping[str, str], out: Path) -> None:
        """Compile and export. Raises TargetError where OpenVINO can't."""
        with _mapped_errors():
            core = _core()
            compiled = core.compile_model(core.read_model(lowered), "CPU", dict(config))
            out.write_bytes(compiled.export_model().getvalue())

    def load(self, engine: Path, record: EngineRecord, threads: int | None = None) -> Engine:
        """Import an engine with the config it was compiled with. Raises EngineMismatch."""
        check_target(self, record)
        config = {**record.config, **({} if threads is None else {"INFERENCE_NUM_THREADS": str(threads)})}
        with _mapped_errors():
            return _OpenVINOEngine(record, _core().import_model(BytesIO(engine.read_bytes()), "CPU", config))


class _OpenVINOEngine(Engine):
    def __init__(self, record: EngineRecord, compiled: openvino.CompiledModel) -> None:
        self.record = record
        self._request = compiled.create_infer_request()

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        with _mapped_errors():
            results = self._request.infer(checked_inputs(self.record, inputs), share_inputs=True)
        return {info.name: results[info.name].copy() for info in self.record.outputs}


def _core() -> openvino.Core:
    import openvino

    return openvino.Core()


@contextmanager
def _mapped_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # OpenVINO raises its ov::Exception as this
        raise TargetError(f"openvino: {str(error).splitlines()[-1] if str(error) else 'failed'}") from error
