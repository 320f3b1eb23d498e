"""The targets `tensorrt` and `tensorrt-rtx`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qzoo.backends.base import installed_version
from qzoo.backends.trt.gpu import architecture, cuda_runtime, why_no_gpu
from qzoo.backends.trt.sdk import Sdk, load_sdk
from qzoo.errors import EngineMismatch, TargetUnavailable, TargetUnsupported, UnknownName
from qzoo.hookspecs import Backend, Engine
from qzoo.records import EngineRecord, LayerTable, Probe, Target
from qzoo.spec import BuilderSettings, Precision, Recipe, Role

if TYPE_CHECKING:
    import onnx_ir as ir


class TensorRT(Backend):
    """Symmetric int8 Q/DQ graphs, as the portable graph is; the skip input of an add quantized, its branch not.

    Needs a GPU to build. Written to its documentation; this project has not executed it.
    """

    name: ClassVar[str] = "tensorrt"
    sdk: ClassVar[str] = "tensorrt"
    module: ClassVar[str] = "tensorrt"
    roles: ClassVar[tuple[Role, ...]] = ("input", "weight", "skip")
    suffix: ClassVar[str] = ".plan"
    float_precisions: ClassVar[tuple[Precision, ...]] = ("fp32", "fp16")

    def probe(self) -> Probe:
        """Whether it is installed and has a GPU, to build with and to run on."""
        installed = installed_version(self.sdk)
        if not installed.works:
            return installed
        lacking = why_no_gpu()
        return Probe(works=not lacking, builds=not lacking, version=installed.version, reason=lacking)

    def target(self) -> Target:
        """This machine's GPU. Raises TargetUnavailable, or UnknownName for a GPU that the SDK doesn't know."""
        version = self._version()
        try:
            here = architecture()
        except TargetUnavailable as error:
            raise TargetUnavailable(f"target {self.name}: {error}{self._way_out}") from error
        return Target(runtime=self.name, isa=here, version=version)

    def check_precision(self, precision: Precision) -> None:
        """All but bf16. Networks are strongly typed: 16 bits are in the graph, and lowering makes only fp16."""
        if precision == "bf16":
            raise TargetUnsupported(f"target {self.name}: graphs aren't converted to bf16; use --precision fp16")

    def check_builder(self, builder: BuilderSettings) -> None:
        """TensorRT has all of them."""

    def lower(self, portable: ir.Model, recipe: Recipe, target: Target) -> ir.Model:
        """The active roles of the portable graph; transposed convolutions in float; fp16 where the precision has it.

        Raises GraphError.
        """
        from qzoo.backends.trt.lower import float_transposed_convolutions
        from qzoo.graph import groups, lower
        from qzoo.graph.half import to_half

        quantized = [
            lower.keep_roles(recipe.roles),
            groups.keep_float(recipe.float_modules),
            lower.narrow_weights(target.weight_max),
            float_transposed_convolutions,
        ]
        halved = recipe.precision in ("fp16", "int8+fp16")
        passes = [*(quantized if recipe.quantized else []), *([to_half] if halved else []), lower.slim]
        return lower.run_passes(portable, passes)

    def config(self, precision: Precision, threads: int | None = None) -> dict[str, str]:  # noqa: ARG002
        """Nothing that the precision decides: it is in the graph."""
        return {}

    def fixed(self, target: Target, recipe: Recipe) -> dict[str, str]:
        """The GPUs, the batch profile, and what the builder is told."""
        from qzoo.backends.trt.settings import Settings

        batch, builder = recipe.batch, recipe.builder
        settings = Settings(
            workspace_mib=builder.workspace_mib,
            optimization_level=builder.optimization_level,
            version_compatible=builder.version_compatible,
            hardware_compatible=builder.hardware_compatible,
        )
        batches = f"{batch.min}:{batch.opt}:{batch.max}"
        return {"compute_capabilities": target.isa, "batch": batches, **settings.told()}

    def build(self, lowered: bytes, config: Mapping[str, str], out: Path) -> LayerTable | None:
        """Check the graph, parse and build it. Raises TargetError, with the SDK's log."""
        from qzoo.backends.trt.build import build_engine

        return build_engine(self.loaded(), lowered, config, out)

    def runs(self, target: Target) -> bool:
        """One of the GPUs that it was built for is here, and the version is the same."""
        return self.probe().works and self._fits(target)

    def load(self, engine: Path, record: EngineRecord, threads: int | None = None) -> Engine:  # noqa: ARG002
        """Deserialize an engine, whose bytes are checked first: they are native code.

        Raises IntegrityError, TargetUnavailable where something is missing to run it here, or EngineMismatch.
        """
        from qzoo.backends.trt.cuda import Cuda
        from qzoo.backends.trt.run import Session, TrtEngine, read_plan

        plan = read_plan(engine, record.sha256)
        reason = self.probe().reason
        if reason:
            raise TargetUnavailable(f"{engine.name} is for {record.target} and can't run here: {reason}")
        if not self._fits(record.target):
            raise EngineMismatch(
                f"{engine.name} was built for {record.target} with {self.name} {record.target.version}; here is "
                f"{architecture()} with {self._version()}; rebuild it from its portable graph with --build"
            )
        return TrtEngine(Session(self.loaded(), plan, Cuda(cuda_runtime())), record)

    def _fits(self, target: Target) -> bool:
        return architecture() in target.isa.split("+") and target.version == self._version()

    _way_out: ClassVar[str] = ""

    def _version(self) -> str:
        found = installed_version(self.sdk)
        if found.version is None:
            raise TargetUnavailable(f"target {self.name}: {found.reason}")
        return found.version

    def loaded(self) -> Sdk:
        """Its SDK. Raises TargetUnavailable."""
        return load_sdk(self.name, self.module)


class TensorRTRTX(TensorRT):
    """TensorRT-RTX builds ahead of time, for GPUs that needn't be here."""

    name: ClassVar[str] = "tensorrt-rtx"
    sdk: ClassVar[str] = "tensorrt_rtx_cu13"
    module: ClassVar[str] = "tensorrt_rtx"

    def probe(self) -> Probe:
        """Whether it is installed; then it builds, with or without a GPU."""
        installed = installed_version(self.sdk)
        if not installed.works:
            return installed
        lacking = why_no_gpu() or self._why_not_this_gpu()
        return Probe(works=not lacking, builds=True, version=installed.version, reason=lacking)

    def _why_not_this_gpu(self) -> str:
        try:
            here, known = architecture(), self.loaded().architectures()
        except TargetUnavailable as error:
            return str(error)
        return "" if here in known else f"it doesn't run on this GPU, {here}, but on {', '.join(known)}"

    def target(self) -> Target:
        """This machine's GPU. Raises TargetUnavailable, or UnknownName for a GPU that the SDK doesn't know."""
        return self.target_for(super().target().isa)

    def check_builder(self, builder: BuilderSettings) -> None:
        """No compatibility modes: it would fail at the one, and ignore the other with a warning in its log."""
        if builder.version_compatible:
            raise TargetUnsupported(
                f"target {self.name}: --version-compatible needs the lean runtime that only full TensorRT has; build "
                "again for another version, from the portable graph"
            )
        if builder.hardware_compatible:
            raise TargetUnsupported(
                f"target {self.name}: --hardware-compatible is full TensorRT's; name every GPU, --gpu sm86,sm89,sm120"
            )

    def target_for(self, hardware: str) -> Target:
        """Of "sm86+sm89": one engine for several GPUs. Raises UnknownName for one that the SDK doesn't build for."""
        version = self._version()
        known = self.loaded().architectures()
        asked = hardware.replace(",", "+").split("+")
        for gpu in asked:
            if gpu not in known:
                raise UnknownName("GPU architecture", gpu, known, f"{self.name} builds for {', '.join(known)}")
        return Target(runtime=self.name, isa="+".join(gpu for gpu in known if gpu in asked), version=version)

    _way_out: ClassVar[str] = "; to build ahead of time name the GPUs it is for: --gpu sm86,sm89,sm120"
