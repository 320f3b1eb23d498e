"""Backends of machines that are not at hand: they tell a target, and build and load nothing."""

from __future__ import annotations

from small_bundles import RUNTIMES

from qzoo.errors import TargetUnavailable
from qzoo.hookspecs import Backend
from qzoo.records import Probe, Target


class Machine(Backend):
    """A runtime as a machine has it. Without a version it doesn't work there."""

    sdk, roles, suffix, float_precisions = "sdk", (), ".blob", ()

    def __init__(self, name: str, isa: str | None = None, version: str | None = "1.0", *, vnni: bool = True) -> None:
        self.name, self._isa, self._version, self._vnni = name, isa or RUNTIMES[name], version, vnni

    def probe(self) -> Probe:
        reason = "" if self._version else f"{self.name} is not installed"
        return Probe(works=self._version is not None, version=self._version, reason=reason)

    def target(self) -> Target:
        if self._version is None:
            raise TargetUnavailable(f"{self.name} is not installed")
        return Target(runtime=self.name, isa=self._isa, version=self._version, vnni=self._vnni)

    def check_precision(self, precision):
        raise NotImplementedError

    lower = config = build = load = check_precision


HERE = (Machine("openvino"), Machine("onnxruntime"))
"""A machine for which `small_bundles` makes bundles, in order of preference."""
