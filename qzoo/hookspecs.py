"""The hooks a plugin may implement, and what the things it provides must be able to do.

A plugin is a module with functions marked `@qzoo.hookimpl`:

    import qzoo

    @qzoo.hookimpl
    def qzoo_models():
        yield qzoo.ModelSpec(name="mynet", ...)

It is found through the entry-point group `qzoo`, or in a folder given by `--plugin-dir` or `QZOO_PLUGINS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import pluggy

from qzoo.errors import TargetUnsupported
from qzoo.spec import BuilderSettings, ModelFamily, ModelSpec, Precision, Recipe, Role

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray
    from PIL.Image import Image

    from qzoo.records import EngineRecord, LayerTable, LayerTime, Probe, Target

    Arrays = Mapping[str, NDArray[np.float32]]

GROUP = "qzoo"
"""The entry-point group, and the name of the hooks' project."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Split = Literal["calibration", "held-out"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset: a stable id, a digest of its content, and its class index where there is one."""

    id: str
    sha256: str
    label: int | None


class Dataset(Protocol):
    """Images in two splits that never share one."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The class names, index by index, or None where the images carry no label."""

    def samples(self, split: Split) -> Sequence[Sample]:
        """The samples of a split, always in the same order."""

    def image(self, sample: Sample) -> Image:
        """Decode one sample. Raises DataUnavailable that names a sample which can't be read."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset by name. `open` is called only when it is asked for."""

    name: str
    summary: str
    open: Callable[[], Dataset]


class Engine(ABC):
    """A loaded engine: named float32 arrays in, named float32 arrays out. The first axis is the batch."""

    record: EngineRecord

    @abstractmethod
    def run(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """Run one batch."""

    def profile(self, inputs: Arrays, rounds: int) -> tuple[LayerTime, ...] | None:  # noqa: ARG002
        """Each layer's time on one batch, over `rounds` calls; None where the runtime doesn't tell it."""
        return None


class Backend(ABC):
    """One runtime. Its SDK is imported only inside its methods; its SDK's exceptions come out as qzoo's."""

    name: ClassVar[str]
    sdk: ClassVar[str]  # the distribution to install
    roles: ClassVar[tuple[Role, ...]]  # the quantizers that pay off here, where a model's recipe says nothing
    suffix: ClassVar[str]  # of an engine file
    float_precisions: ClassVar[tuple[Precision, ...]]  # the float engines an INT8 engine is compared with

    @abstractmethod
    def probe(self) -> Probe:
        """Whether the runtime works on this machine, and why not."""

    @abstractmethod
    def target(self) -> Target:
        """This machine as a target. Raises TargetUnavailable."""

    def target_for(self, hardware: str) -> Target:
        """The target `<name>/<hardware>`. Raises TargetUnsupported for hardware that it can't build for here.

        As most runtimes do, this builds only for the machine it runs on; one that builds ahead of time overrides it.
        """
        here = self.target()
        if hardware != here.isa:
            raise TargetUnsupported(
                f"target {self.name}/{hardware}: this machine is {here}, and {self.name} builds only for the machine "
                "it runs on; build there, or leave out the part after the slash"
            )
        return here

    def runs(self, target: Target) -> bool:
        """Whether engines built for `target` run here. If not, their measurement says "planned"."""
        return self.probe().works and target == self.target()

    @abstractmethod
    def check_precision(self, precision: Precision) -> None:
        """Raise TargetUnsupported, naming the way out, where this machine can't run `precision`."""

    def check_builder(self, builder: BuilderSettings) -> None:
        """Raise TargetUnsupported for settings that this runtime doesn't have; here for any."""
        if builder != BuilderSettings():
            raise TargetUnsupported(
                f"target {self.name}: it has no builder settings (workspace, optimization level, compatibility); leave "
                "them out"
            )

    @abstractmethod
    def lower(self, portable: ir.Model, recipe: Recipe, target: Target) -> ir.Model:
        """Portable graph -> the plain ONNX graph that this runtime turns into its best kernels."""

    @abstractmethod
    def config(self, precision: Precision, threads: int | None = None) -> dict[str, str]:
        """The runtime's settings for a precision, by the runtime's own names, as kept in the engine's record."""

    def fixed(self, target: Target, recipe: Recipe) -> dict[str, str]:  # noqa: ARG002 - for those who override it
        """What else of a build's config the target and the recipe decide; here nothing, as any batch runs."""
        return {}

    @abstractmethod
    def build(self, lowered: bytes, config: Mapping[str, str], out: Path) -> LayerTable | None:
        """Turn a serialized lowered ONNX graph into an engine file at `out`. `config` has the engine's record, and what
        is this machine's own beside it, such as the path of a timing cache.

        Returns the engine's layers where the runtime tells them.
        """

    @abstractmethod
    def load(self, engine: Path, record: EngineRecord, threads: int | None = None) -> Engine:
        """Load an engine file that the caller has checked against its digest.

        Raises EngineMismatch, naming both sides, where it was built for another version or instruction set.
        """


class Hooks:
    """The hooks. Each is optional; each may yield any number of things."""

    @hookspec
    def qzoo_models(self) -> Iterable[ModelSpec | ModelFamily]:  # type: ignore[empty-body]
        """The models of a plugin.

        Example::

            @qzoo.hookimpl
            def qzoo_models():
                yield ModelSpec(name="mynet", builder="mynet.model:mynet", ...)
        """

    @hookspec
    def qzoo_backends(self) -> Iterable[Backend]:  # type: ignore[empty-body]
        """The runtimes of a plugin. Making one must not import its SDK.

        Example::

            @qzoo.hookimpl
            def qzoo_backends():
                yield MyBackend()
        """

    @hookspec
    def qzoo_datasets(self) -> Iterable[DatasetSource]:  # type: ignore[empty-body]
        """The datasets of a plugin.

        Example::

            @qzoo.hookimpl
            def qzoo_datasets():
                yield DatasetSource("parts", "photographs of machine parts", open_parts)
        """
