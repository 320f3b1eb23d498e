"""onnxruntime on the CPU. Its engine is the lowered ONNX graph itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qzoo.backends.base import check_target, checked_inputs, installed_version, required_version
from qzoo.backends.cpu import cpu_flags, isa
from qzoo.errors import IntegrityError, QzooError, TargetError, TargetUnsupported
from qzoo.hookspecs import Backend, Engine
from qzoo.records import EngineRecord, Probe, Target
from qzoo.spec import Precision, Recipe, Role

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    import onnxruntime
    from numpy.typing import NDArray

    from qzoo.hookspecs import Arrays


class OnnxRuntime(Backend):
    """Q/DQ graphs in uint8, which its fastest x86 kernels (U8S8) want; both inputs of an add quantized."""

    name: ClassVar[str] = "onnxruntime"
    sdk: ClassVar[str] = "onnxruntime"
    roles: ClassVar[tuple[Role, ...]] = ("input", "weight", "skip", "branch")
    suffix: ClassVar[str] = ".onnx"
    float_precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)

    def probe(self) -> Probe:
        """Whether onnxruntime is installed."""
        return installed_version(self.sdk)

    def target(self) -> Target:
        """This machine's CPU. Raises TargetUnavailable."""
        level, vnni = isa(cpu_flags())
        return Target(runtime=self.name, isa=level, version=required_version(self), vnni=vnni)

    def check_precision(self, precision: Precision) -> None:
        """fp32 and int8: onnxruntime's CPU kernels compute in nothing else."""
        if precision not in ("fp32", "int8"):
            raise TargetUnsupported(
                f"target {self.name}: its CPU kernels don't compute in {precision}; use --precision fp32 or int8, or "
                "another --target"
            )

    def lower(self, portable: ir.Model, recipe: Recipe, target: Target) -> ir.Model:
        """uint8 everywhere: zero point 0 after a ReLU (which is absorbed), else 128. Raises GraphError.

        Convolutions whose result is not quantized stay in float: there is no integer kernel for them. The one that
        reads an image reads blocks of it, which its kernel gathers faster.
        """
        from qzoo.graph import blocks, bounded, grids, groups, lower, transposed, unfused

        passes = [
            lower.keep_roles(recipe.roles),
            groups.keep_float(recipe.float_modules),
            lower.narrow_weights(target.weight_max),
            transposed.store_transposed,
            grids.carry_grids,
            grids.round_once,
            lower.quantize_before_moves,
            lower.unsigned_non_negative,
            bounded.shift_bounded,
            lower.offset_signed,
            lower.absorb_clamps,
            unfused.float_unfused,
            lower.floor_weight_scales,
            lower.quantize_biases,
            lower.spell_out_zero_points,
            blocks.convolve_blocks,
        ]
        return lower.run_passes(portable, [*(passes if recipe.quantized else []), lower.slim])

    def config(self, precision: Precision, threads: int | None = None) -> dict[str, str]:  # noqa: ARG002
        """The number of threads of one operator; one operator runs at a time."""
        return {} if threads is None else {"intra_op_num_threads": str(threads)}

    def build(self, lowered: bytes, config: Mapping[str, str], out: Path) -> None:
        """Write the graph. Raises TargetError where onnxruntime can't load it."""
        with _mapped_errors():
            _session(lowered, config)
        out.write_bytes(lowered)

    def load(self, engine: Path, record: EngineRecord, threads: int | None = None) -> Engine:
        """Load an engine. Raises EngineMismatch, or IntegrityError where it is no graph."""
        check_target(self, record)
        config = {**record.config, **self.config(record.precision, threads)}
        with _mapped_errors(unreadable=IntegrityError):
            return _OrtEngine(record, _session(engine.read_bytes(), config))


def reference(graph: bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session with every optimization off: the graph as it is written, the reference that engines are held to."""
    import onnxruntime

    options = {} if threads is None else {"intra_op_num_threads": str(threads)}
    with _mapped_errors():
        return _session(graph, options, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


class _OrtEngine(Engine):
    def __init__(self, record: EngineRecord, session: onnxruntime.InferenceSession) -> None:
        self.record = record
        self._session = session
        self._outputs = [info.name for info in record.outputs]

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        with _mapped_errors():
            results = self._session.run(self._outputs, checked_inputs(self.record, inputs))
        return dict(zip(self._outputs, results, strict=True))


def _session(
    graph: bytes, config: Mapping[str, str], level: onnxruntime.GraphOptimizationLevel | None = None
) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = int(config.get("intra_op_num_threads", "0"))
    options.inter_op_num_threads = 1
    if level is not None:
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@contextmanager
def _mapped_errors(unreadable: type[QzooError] = TargetError) -> Iterator[None]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    broken = (state.InvalidProtobuf, state.InvalidGraph, state.NoModel)
    failed = tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    try:
        yield
    except broken as error:
        raise unreadable(f"onnxruntime can't read the graph: {error}; build or fetch the engine again") from error
    except failed as error:
        raise TargetError(f"onnxruntime: {error}") from error
