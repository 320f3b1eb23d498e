"""Opens an engine and runs it: check its digest, load it, feed it, read it. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qzoo.errors import UsageError
from qzoo.graph.contained import check_contained
from qzoo.measure import decide, softmax
from qzoo.records import EngineRecord, LayerTime
from qzoo.registry import Registry
from qzoo.store import EngineFile, Store, locate, verify_file
from qzoo.zoo.gate import admit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qzoo.hookspecs import Engine


@dataclass(frozen=True, slots=True)
class Guess:
    """One class an image may be of, and its probability."""

    label: str
    index: int
    probability: float


class LoadedEngine:
    """An engine ready to run: `engine(array)` gives its outputs. Plugins were looked for in `plugin_dirs`, too."""

    def __init__(self, engine: Engine, path: Path, plugin_dirs: Sequence[Path] = ()) -> None:
        self._engine, self.path, self.plugin_dirs = engine, path, tuple(plugin_dirs)

    @property
    def record(self) -> EngineRecord:
        """The engine's sidecar."""
        return self._engine.record

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Run one batch (N, C, H, W) float32: the output array, or a dictionary where the engine has several.

        Raises UsageError for another shape or batch.
        """
        outputs = self.run({self.record.inputs[0].name: images})
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run one batch of named inputs."""
        return self._engine.run(inputs)

    def profile(self, inputs: Mapping[str, NDArray[np.float32]], rounds: int) -> tuple[LayerTime, ...] | None:
        """Each layer's time on one batch, over `rounds` calls; None where the runtime doesn't tell it."""
        return self._engine.profile(inputs, rounds)

    def classify(self, image: Path, top: int = 5) -> list[Guess]:
        """The `top` most probable classes of an image file. Raises DataUnavailable if it can't be read."""
        from qzoo.data.files import open_image
        from qzoo.data.preprocess import apply

        array = apply(self.record.preprocess, open_image(image))[None]
        scores = decide(self.run({self.record.inputs[0].name: array}), self.record.decision)[0]
        chances = softmax(scores) if self.record.decision == "argmax" else scores / scores.sum()
        order = np.argsort(-chances, kind="stable")[:top]
        return [Guess(self.record.labels[i], int(i), float(chances[i])) for i in order]


def working(registry: Registry) -> list[str]:
    """The targets that work here, whole and then as runtimes, the preferred first."""
    backends = [backend for backend in registry.preferred() if backend.probe().works]
    return [*(str(backend.target()) for backend in backends), *(backend.name for backend in backends)]


def find(reference: str | Path, registry: Registry, store: Store, target: str | None = None) -> EngineFile:
    """The engine that a path or reference names; see `load`. Nothing of it is read but its record."""
    return locate(str(reference), store, target, working(registry))


def load(
    reference: str | Path,
    *,
    target: str | None = None,
    store: Store | None = None,
    plugin_dirs: Sequence[Path] = (),
    threads: int | None = None,
    allow_untrusted: bool = False,
) -> LoadedEngine:
    """Open an engine: a bundle's directory, an engine file with its `.json` beside it, or a reference, "resnet20:int8".

    Where a reference is stored for several targets, `target` says which; else the preferred one that works here.
    Its digest is checked before the runtime sees it. One that was neither built here nor signed by a trusted key is
    loaded only with `allow_untrusted`: it may do whatever this process may. Raises NoMatchError, IntegrityError,
    UntrustedEngine, EngineMismatch, TargetUnavailable or UsageError.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    registry = Registry.load(plugin_dirs)
    store = store or Store.default()
    found = find(reference, registry, store, target)
    verify_file(found.path, found.record.sha256)
    own = admit(found, store, allow_untrusted=allow_untrusted)
    if not own and found.path.suffix == ".onnx":
        check_contained(found.path.read_bytes(), found.path)
    backend = registry.backend(found.record.target.runtime)
    return LoadedEngine(backend.load(found.path, found.record, threads), found.path, plugin_dirs)
