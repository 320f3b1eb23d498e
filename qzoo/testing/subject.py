"""What is checked: one model of a plugin, with what its checks share, each made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from qzoo import weights
from qzoo.errors import BrokenPlugin, TargetUnavailable, UnknownName
from qzoo.hookspecs import Backend
from qzoo.pipeline import Options, Plan, make_plan
from qzoo.pipeline.progress import Silent
from qzoo.registry import ModelEntry, Registry
from qzoo.spec import ModelSpec
from qzoo.testing.where import line_of_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qzoo.pipeline.prepare import Prepared

SEED = 0
IMAGES = 8
"""Images that set BatchNorm statistics, and held-out images that outputs are compared on."""


@dataclass(frozen=True)
class Subject:
    """A model, the registry it is in, and a folder for what checks keep. What a property needs is made once.

    `targets` are the runtimes that it is checked on, by name; none: all that work here.
    """

    entry: ModelEntry
    registry: Registry
    cache: Path
    targets: tuple[str, ...] = ()

    @property
    def spec(self) -> ModelSpec:
        return self.entry.spec

    @cached_property
    def root(self) -> Path:
        """The plugin's package, or its file where it is a single module."""
        origin = Path(self.entry.provenance.origin).resolve()
        return origin.parent if origin.name == "__init__.py" else origin

    def runtimes(self) -> list[Backend]:
        """Those of `targets`, or all that work here."""
        if self.targets:
            return [self.registry.backend(name) for name in self.targets]
        return [backend for backend in self.registry.preferred() if backend.probe().works]

    def plan_for(self, target: str) -> Plan:
        """An INT8 build with random weights and few images. Raises what `make_plan` does."""
        options = Options(
            model=self.spec.name,
            target=target,
            weights="random",
            calib_samples=IMAGES,
            seed=SEED,
            workers=0,
            calibrator="max",
        )
        plan = make_plan(options, self.registry, self.cache)
        return replace(plan, held_out=plan.held_out[:IMAGES])

    @cached_property
    def plan(self) -> Plan:
        """The build for the first runtime."""
        return self.plan_for(self.targets[0] if self.targets else "auto")

    @cached_property
    def batch(self) -> Tensor:
        """Normal noise of the input's shape (8, C, H, W) float32, the same in every call."""
        import torch

        return torch.randn(IMAGES, *self.spec.input.shape, generator=torch.Generator().manual_seed(SEED))

    @cached_property
    def network(self) -> nn.Module:
        """The float network in eval mode, seeded random weights, BatchNorm statistics of `batch`. Not to be changed."""
        from qzoo.pipeline.network import load_network

        plan = weights.plan(self.spec, "random", SEED, self.cache)
        return load_network(self.spec, plan, self.batch).network

    @cached_property
    def prepared(self) -> Prepared:
        """The plan's graphs and outputs."""
        from qzoo.pipeline.prepare import prepare

        return prepare(self.plan, Silent())


def subjects_in(folder: Path, cache: Path, targets: Sequence[str] = ()) -> list[Subject]:
    """The models of the plugins in a folder, which `--plugin-dir` would take.

    Raises UsageError for a folder without plugins, BrokenPlugin, with the line, where one can't be loaded or has no
    model, and what `subjects_named` does for targets.
    """
    from qzoo.registry.folders import find_in, import_from

    found = find_in(folder)
    for one in found:
        try:
            import_from(one)
        except Exception as error:
            root = one.root / one.module if (one.root / one.module).is_dir() else one.root / f"{one.module}.py"
            where = line_of_error(root.resolve(), error) or root
            raise BrokenPlugin(f"plugin {one.name}: {where}: {type(error).__name__}: {error}") from error
    registry = Registry.load([folder], env={})
    _refuse_problems(registry, {one.name for one in found})
    return _subjects(registry, {one.module for one in found}, str(folder), cache, targets)


def subjects_named(name: str, registry: Registry, cache: Path, targets: Sequence[str] = ()) -> list[Subject]:
    """One model by its name, or all of a plugin by the plugin's.

    Raises UnknownName, also for a target that isn't there; TargetUnavailable for one that doesn't work here; or
    BrokenPlugin.
    """
    _refuse_problems(registry, {name})
    modules = {entry.provenance.module for entry in registry.models() if entry.provenance.plugin == name}
    if modules:
        return _subjects(registry, modules, name, cache, targets)
    runtimes = _working(registry, targets)
    try:
        return [Subject(registry.model(name), registry, cache, runtimes)]
    except UnknownName as error:
        known = {entry.provenance.plugin for entry in registry.models()} | {e.spec.name for e in registry.models()}
        raise UnknownName("plugin or model", name, known) from error


def _refuse_problems(registry: Registry, names: set[str]) -> None:
    for problem in registry.problems:
        if problem.plugin in names:
            raise BrokenPlugin(f"plugin {problem.plugin} ({problem.origin}) can't be loaded: {problem.message}")


def _subjects(registry: Registry, modules: set[str], name: str, cache: Path, targets: Sequence[str]) -> list[Subject]:
    runtimes = _working(registry, targets)
    models = [entry for entry in registry.models() if entry.provenance.module in modules]
    if not models:
        raise BrokenPlugin(f"{name}: its hooks give no model to check; yield a ModelSpec from qzoo_models")
    return [Subject(entry, registry, cache, runtimes) for entry in models]


def _working(registry: Registry, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets, each once. Raises UnknownName or TargetUnavailable."""
    for name in targets:
        probe = registry.backend(name).probe()
        if not probe.works:
            raise TargetUnavailable(f"target {name} doesn't work here: {probe.reason}")
    return tuple(dict.fromkeys(targets))
