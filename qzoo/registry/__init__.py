"""Finds plugins and what they provide: models, families, backends, datasets.

Three sources, in this order: qzoo's own backends and datasets, the entry points of the group `qzoo` (by name), and the
folders given by `--plugin-dir` or QZOO_PLUGINS. All register through the same hooks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import pluggy

from qzoo.errors import BrokenPlugin, DuplicateName, SpecError, UnknownHook, UnknownName
from qzoo.hookspecs import GROUP, Backend, DatasetSource, Hooks
from qzoo.provenance import Provenance
from qzoo.spec import ModelFamily, ModelSpec

if TYPE_CHECKING:
    from qzoo.registry.folders import Found

T = TypeVar("T")

BUILTINS = {"qzoo-backends": "qzoo.backends", "qzoo-datasets": "qzoo.data.plugin"}
PREFERENCE = ("tensorrt", "tensorrt-rtx", "openvino", "onnxruntime")
"""`--target auto` takes the first of these that works here; then any other, by name."""
HOOKS = ("qzoo_models", "qzoo_backends", "qzoo_datasets")


@dataclass(frozen=True, slots=True)
class Problem:
    """A plugin that was left out, and why."""

    plugin: str
    origin: str
    message: str


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model and the plugin it comes from."""

    spec: ModelSpec
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class FamilyEntry:
    """A family of models and the plugin it comes from."""

    family: ModelFamily
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    module: str
    origin: str
    load: Callable[[], ModuleType]
    distribution: str | None = None
    version: str | None = None


class Registry:
    """What the loaded plugins provide. Made by `Registry.load`, of which it keeps the `plugin_dirs`."""

    def __init__(self, plugin_dirs: Sequence[Path] = ()) -> None:
        self.plugin_dirs = tuple(plugin_dirs)
        self._models: dict[str, ModelEntry] = {}
        self._families: dict[str, FamilyEntry] = {}
        self._backends: dict[str, tuple[Backend, Provenance]] = {}
        self._datasets: dict[str, tuple[DatasetSource, Provenance]] = {}
        self._problems: list[Problem] = []

    @classmethod
    def load(
        cls,
        plugin_dirs: Sequence[Path] = (),
        env: Mapping[str, str] = os.environ,
        builtins: Mapping[str, str] = BUILTINS,
    ) -> Registry:
        """Load every plugin. One that raises is left out and kept in `problems`; the others still load.

        Raises UsageError for a folder without plugins, UnknownHook for a misspelt hook, DuplicateName where two plugins
        provide the same name.
        """
        registry = cls(plugin_dirs)
        seen: set[str] = set()
        for candidate in (*_own(builtins), *_installed(), *_in_folders(plugin_dirs, env.get("QZOO_PLUGINS", ""))):
            if candidate.module not in seen:
                seen.add(candidate.module)
                registry._add(candidate)
        return registry

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The plugins that were left out."""
        return tuple(self._problems)

    def models(self) -> tuple[ModelEntry, ...]:
        """Every model, by name; those of families are not listed."""
        return tuple(self._models[name] for name in sorted(self._models))

    def families(self) -> tuple[FamilyEntry, ...]:
        """Every family, by prefix."""
        return tuple(self._families[prefix] for prefix in sorted(self._families))

    def backends(self) -> tuple[Backend, ...]:
        """Every backend, by name."""
        return tuple(self._backends[name][0] for name in sorted(self._backends))

    def preferred(self) -> tuple[Backend, ...]:
        """Every backend, in the order in which `--target auto` tries them."""
        order = {name: place for place, name in enumerate(PREFERENCE)}
        return tuple(sorted(self.backends(), key=lambda backend: (order.get(backend.name, len(order)), backend.name)))

    def datasets(self) -> tuple[DatasetSource, ...]:
        """Every dataset, by name."""
        return tuple(self._datasets[name][0] for name in sorted(self._datasets))

    def model(self, name: str) -> ModelEntry:
        """The model of that name; `prefix/x` is resolved by its family. Raises UnknownName or SpecError."""
        if name in self._models:
            return self._models[name]
        prefix, slash, rest = name.partition("/")
        if slash and prefix in self._families:
            entry = self._families[prefix]
            known = set(entry.family.names())
            if rest not in known:
                raise UnknownName("model", name, (f"{prefix}/{one}" for one in known))
            return ModelEntry(_checked(entry.family.resolve(rest), ModelSpec, entry.provenance), entry.provenance)
        left_out = "; ".join(f"plugin {p.plugin} could not be loaded: {p.message}" for p in self._problems)
        raise UnknownName("model", name, self._models, left_out or "`qzoo list` shows all")

    def backend(self, name: str) -> Backend:
        """The backend of that name. Raises UnknownName."""
        if name not in self._backends:
            raise UnknownName("target", name, {*self._backends, "auto"})
        return self._backends[name][0]

    def dataset(self, name: str) -> DatasetSource:
        """The dataset of that name. Raises UnknownName."""
        if name not in self._datasets:
            raise UnknownName("dataset", name, self._datasets, "or give a directory of images")
        return self._datasets[name][0]

    def _add(self, candidate: _Candidate) -> None:
        try:
            module = candidate.load()
            provenance = _provenance(candidate, module)
            provided = _call_hooks(module, provenance)
        except (UnknownHook, DuplicateName):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises must not take others down
            self._problems.append(Problem(candidate.name, candidate.origin, f"{type(error).__name__}: {error}"))
            return
        for thing in provided:
            self._keep(thing, provenance)

    def _keep(self, thing: object, provenance: Provenance) -> None:
        if isinstance(thing, ModelSpec):
            _once("model", self._models, thing.name, ModelEntry(thing, provenance), lambda entry: entry.provenance)
        elif isinstance(thing, ModelFamily):
            entry = FamilyEntry(thing, provenance)
            _once("family", self._families, thing.prefix, entry, lambda entry: entry.provenance)
        elif isinstance(thing, Backend):
            _once("backend", self._backends, thing.name, (thing, provenance), lambda entry: entry[1])
        elif isinstance(thing, DatasetSource):
            _once("dataset", self._datasets, thing.name, (thing, provenance), lambda entry: entry[1])


def source_digest(provenance: Provenance) -> str:
    """SHA-256 over a plugin's files: their paths below its package and their bytes, compiled files left out."""
    from qzoo.records import digest_of, file_digest  # here, as listing models needs neither

    origin = Path(provenance.origin)
    if origin.name != "__init__.py":
        return digest_of([[origin.name, file_digest(origin)]])
    files = sorted(
        path
        for path in origin.parent.rglob("*")
        if path.is_file() and "__pycache__" not in path.relative_to(origin.parent).parts
    )
    return digest_of([[path.relative_to(origin.parent).as_posix(), file_digest(path)] for path in files])


def _own(builtins: Mapping[str, str]) -> Iterable[_Candidate]:
    for name, module in builtins.items():
        yield _Candidate(name, module, module, lambda module=module: import_module(module), "qzoo")  # type: ignore[misc]


def _installed() -> Iterable[_Candidate]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        yield _from_entry_point(point)


def _from_entry_point(point: EntryPoint) -> _Candidate:
    distribution = point.dist.name if point.dist else None
    version = point.dist.version if point.dist else None

    def load() -> ModuleType:
        return import_module(point.module)

    return _Candidate(point.name, point.module, point.value, load, distribution, version)


def _in_folders(given: Sequence[Path], variable: str) -> Iterable[_Candidate]:
    if not given and not variable:
        return  # most calls name no folder, and shall not wait for what reads one
    from qzoo.registry.folders import find_in, folders_in

    for folder in (*given, *folders_in(variable)):
        for found in find_in(folder):
            yield _from_folder(found)


def _from_folder(found: Found) -> _Candidate:
    from qzoo.registry.folders import import_from

    return _Candidate(found.name, found.module, str(found.root / found.module), lambda: import_from(found))


def _provenance(candidate: _Candidate, module: ModuleType) -> Provenance:
    return Provenance(
        plugin=candidate.name,
        module=candidate.module,
        origin=module.__file__ or candidate.origin,
        distribution=candidate.distribution,
        version=candidate.version,
    )


def _call_hooks(module: ModuleType, provenance: Provenance) -> list[object]:
    """Everything one plugin's hooks yield. A manager of its own, so that what it raises is its own fault."""
    manager = pluggy.PluginManager("qzoo")
    manager.add_hookspecs(Hooks)
    try:
        manager.register(module, provenance.plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _unknown_hook(manager, module, provenance, error) from error
    provided: list[object] = []
    for hook, kinds in zip(HOOKS, ((ModelSpec, ModelFamily), (Backend,), (DatasetSource,)), strict=True):
        for things in getattr(manager.hook, hook)():
            provided += [_checked(thing, kinds, provenance) for thing in things]
    return provided


def _unknown_hook(
    manager: pluggy.PluginManager, module: ModuleType, provenance: Provenance, error: Exception
) -> UnknownHook | BrokenPlugin:
    from difflib import get_close_matches

    implemented = [name for name in vars(module) if manager.parse_hookimpl_opts(module, name) is not None]
    unknown = [name for name in implemented if name not in HOOKS]
    if not unknown:
        return BrokenPlugin(f"plugin {provenance.plugin} ({module.__file__}): {error}")
    near = get_close_matches(unknown[0], HOOKS, n=1, cutoff=0.0)
    return UnknownHook(
        f"plugin {provenance.plugin} ({module.__file__}) implements {unknown[0]}, which is no hook; "
        f"did you mean {near[0]}?"
    )


def _checked(thing: object, kinds: type[T] | tuple[type, ...], provenance: Provenance) -> T:
    if not isinstance(thing, kinds):
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise SpecError(f"plugin {provenance.plugin} gave a {type(thing).__name__} where a {names} is expected")
    return thing  # type: ignore[return-value]


def _once(kind: str, known: dict[str, T], name: str, entry: T, provenance: Callable[[T], Provenance]) -> None:
    if name in known:
        first, second = provenance(known[name]), provenance(entry)
        raise DuplicateName(
            f"{kind} {name!r} is provided twice: by plugin {first.plugin} ({first.origin}) and by plugin "
            f"{second.plugin} ({second.origin}); remove or rename one"
        )
    known[name] = entry
