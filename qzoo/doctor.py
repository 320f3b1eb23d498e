"""What is installed here, and which targets work."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from qzoo.errors import TargetError
from qzoo.hookspecs import Backend
from qzoo.registry import Problem, Registry
from qzoo.spec import PRECISIONS, Precision
from qzoo.store import Store

PACKAGES = (
    "qzoo",
    "torch",
    "torchvision",
    "pytorch-quantization",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx_cu13",
    "cuda-bindings",
    "numpy",
)
TENSORRT = (
    "tensorrt: written to its documentation; this project has not executed full TensorRT, nor run an engine of either "
    "flavour on a GPU"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """Whether one backend runs engines here; if so as which target, if not why not, and whether it builds them."""

    name: str
    works: bool
    builds: bool
    target: str | None
    precisions: tuple[Precision, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What `qzoo doctor` shows. A package's version is None where it isn't installed."""

    python: str
    system: str
    cores: int
    home: str
    packages: dict[str, str | None]
    targets: tuple[TargetState, ...]
    plugin_problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def examine(registry: Registry, store: Store) -> Findings:
    """Look at this machine. Nothing is built or run."""
    return Findings(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count() or 1,
        home=str(store.home),
        packages={name: _version(name) for name in PACKAGES},
        targets=tuple(_state(backend) for backend in registry.backends()),
        plugin_problems=registry.problems,
        notes=(TENSORRT,),
    )


def lines(found: Findings) -> list[str]:
    """The findings for a person."""
    text = [f"python {found.python} on {found.system}, {found.cores} cores", f"home   {found.home}", "packages"]
    text += [f"  {name:22}{version or 'not installed'}" for name, version in found.packages.items()]
    text.append("targets")
    for state in found.targets:
        text.append(f"  {state.name:22}{_said(state)}")
    text += [f"plugin {problem.plugin} was left out: {problem.message}" for problem in found.plugin_problems]
    return [*text, *found.notes]


def _said(state: TargetState) -> str:
    if state.works:
        return f"{state.target}: {', '.join(state.precisions)}"
    if state.builds:
        return f"builds {', '.join(state.precisions)}; runs nothing: {state.reason}"
    return f"doesn't work: {state.reason}"


def _state(backend: Backend) -> TargetState:
    probe = backend.probe()
    builds = probe.works or probe.builds
    usable = tuple(precision for precision in PRECISIONS if builds and _can(backend, precision))
    return TargetState(
        name=backend.name,
        works=probe.works,
        builds=builds,
        target=str(backend.target()) if probe.works else None,
        precisions=usable,
        reason=probe.reason,
    )


def _can(backend: Backend, precision: Precision) -> bool:
    try:
        backend.check_precision(precision)
    except TargetError:
        return False
    return True


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
