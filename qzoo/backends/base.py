"""What the CPU runtimes share."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from qzoo.errors import EngineMismatch, TargetUnavailable, UsageError
from qzoo.hookspecs import Backend
from qzoo.records import EngineRecord, Probe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def installed_version(distribution: str) -> Probe:
    """Whether a distribution is installed, without importing it."""
    try:
        return Probe(works=True, version=version(distribution))
    except PackageNotFoundError:
        return Probe(works=False, reason=f"{distribution} is not installed; pip install {distribution}")


def required_version(backend: Backend) -> str:
    """The version of a backend's SDK. Raises TargetUnavailable where it doesn't work."""
    probe = backend.probe()
    if not probe.works or probe.version is None:
        raise TargetUnavailable(f"target {backend.name}: {probe.reason}")
    return probe.version


def check_target(backend: Backend, record: EngineRecord) -> None:
    """Raise EngineMismatch, naming both sides, unless the engine was built for this machine's target."""
    here, built = backend.target(), record.target
    if (here.isa, here.version) != (built.isa, built.version):
        raise EngineMismatch(
            f"the engine was built for {built} with {built.runtime} {built.version}; this machine is {here} with "
            f"{here.runtime} {here.version}; rebuild it from its portable graph with --build"
        )


def checked_inputs(record: EngineRecord, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The inputs as contiguous float32. Raises UsageError that names an input of another name, shape or batch."""
    import numpy as np  # here, as `qzoo list` makes every backend and needs no array

    expected = {info.name: info for info in record.inputs}
    if inputs.keys() != expected.keys():
        raise UsageError(f"the engine's inputs are {', '.join(expected)}; got {', '.join(inputs) or 'none'}")
    checked = {}
    for name, array in inputs.items():
        array = np.ascontiguousarray(array, dtype=np.float32)  # noqa: PLW2901
        if array.shape[1:] != expected[name].shape:
            wanted = ", ".join(map(str, expected[name].shape))
            raise UsageError(f"input {name} has shape {array.shape}; the engine takes (N, {wanted})")
        if not 1 <= array.shape[0] <= record.max_batch:
            raise UsageError(f"input {name} has a batch of {array.shape[0]}; the engine takes 1 to {record.max_batch}")
        checked[name] = array
    return checked
