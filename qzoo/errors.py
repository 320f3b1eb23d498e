"""Every error that qzoo raises on purpose, and the exit code each one ends the command line with.

    QzooError                       1   something failed that no class below names
    ├── UsageError                  2   the call's words are off
    │   └── UnknownName             2   no model, target, dataset or calibrator of that name (nearest ones listed)
    ├── UnavailableError            3   weights or data are not available
    │   ├── WeightsUnavailable      3   no file, no cache, no network: the message names the ways out
    │   ├── WeightsMismatch         3   a checkpoint of another architecture, or one that can't be read safely
    │   ├── DataUnavailable         3   a dataset is missing, empty, or too small
    │   ├── CalibrationError        3   an amax is not finite, or a quantizer saw no data
    │   ├── RemoteError             3   a registry can't be reached, or doesn't answer as one
    │   │   └── RemoteInterrupted   3   a connection was cut, or a server is busy: it may go well when it is tried again
    │   └── AuthenticationError     3   a registry wants credentials, or refuses those it got
    ├── TargetError                 4   the target can't do this
    │   ├── TargetUnavailable       4   its SDK is missing or doesn't work here
    │   ├── TargetUnsupported       4   it has no such precision or instruction set
    │   └── EngineMismatch          4   the engine was built for another runtime version or hardware
    ├── AccuracyGateError           5   the engine loses more accuracy or fidelity than the recipe allows
    ├── IntegrityError              6   bytes do not match their digest
    │   ├── SignatureError          6   a signature doesn't hold, or a tag was rolled back or has expired
    │   └── UntrustedEngine         6   an engine that was neither built here nor signed by a trusted key
    ├── NoMatchError                7   nothing stored or published fits
    ├── PluginError                 8   a plugin is wrong
    │   ├── DuplicateName           8   two plugins provide the same name
    │   ├── UnknownHook             8   a plugin implements a hook that does not exist
    │   ├── BrokenPlugin            8   a plugin raised while it was loaded
    │   └── SpecError               8   a spec doesn't fit its network (a pattern that matches nothing, ...)
    ├── TrainingDiverged            1   the loss is no longer finite
    ├── ExportError                 1   the network could not be exported to ONNX
    ├── GraphError                  1   a graph pass met or left a graph that breaks an invariant
    └── StoreError                  1   the local store can't be read or written

A message says what was wrong, with which value, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable


class QzooError(Exception):
    """Base of all of qzoo's own errors."""

    exit_code = 1


class UsageError(QzooError):
    """The call's words are off."""

    exit_code = 2


class UnknownName(UsageError):
    """No such model, target, dataset or calibrator."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        from difflib import get_close_matches  # here, as no command that goes well needs it

        known = sorted(known)
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}; {advice}{'; ' + hint if hint else ''}")
        self.kind, self.name, self.near = kind, name, near


class UnavailableError(QzooError):
    """Weights or data are not available."""

    exit_code = 3


class WeightsUnavailable(UnavailableError):
    """No file, no cache, no network."""


class WeightsMismatch(UnavailableError):
    """A checkpoint that belongs to another architecture, or can't be read safely."""


class DataUnavailable(UnavailableError):
    """A dataset is missing, empty, or too small."""


class CalibrationError(UnavailableError):
    """An amax is not finite, or a quantizer saw no data."""


class RemoteError(UnavailableError):
    """A registry can't be reached, or doesn't answer as one."""


class RemoteInterrupted(RemoteError):
    """A connection was cut, or a server is busy: it may go well when it is tried again."""


class AuthenticationError(UnavailableError):
    """A registry wants credentials, or refuses those it got."""


class TargetError(QzooError):
    """The target can't do this."""

    exit_code = 4


class TargetUnavailable(TargetError):
    """The target's SDK is missing or doesn't work here."""


class TargetUnsupported(TargetError):
    """The target has no such precision or instruction set."""


class EngineMismatch(TargetError):
    """The engine was built for another runtime version or hardware."""


class AccuracyGateError(QzooError):
    """The engine loses more accuracy or fidelity than its recipe allows."""

    exit_code = 5


class IntegrityError(QzooError):
    """Bytes do not match their digest."""

    exit_code = 6


class SignatureError(IntegrityError):
    """A signature doesn't hold, or a tag was rolled back or has expired."""


class UntrustedEngine(IntegrityError):
    """An engine that was neither built here nor signed by a trusted key."""


class NoMatchError(QzooError):
    """Nothing stored or published fits."""

    exit_code = 7


class PluginError(QzooError):
    """A plugin is wrong."""

    exit_code = 8


class DuplicateName(PluginError):
    """Two plugins provide the same name."""


class UnknownHook(PluginError):
    """A plugin implements a hook that does not exist."""


class BrokenPlugin(PluginError):
    """A plugin raised while it was loaded."""


class SpecError(PluginError):
    """A spec's declarations don't fit its network."""


class TrainingDiverged(QzooError):
    """The loss is no longer finite."""


class ExportError(QzooError):
    """The network could not be exported to ONNX."""


class GraphError(QzooError):
    """A graph pass met or left a graph that breaks an invariant."""


class StoreError(QzooError):
    """The local store can't be read or written."""
