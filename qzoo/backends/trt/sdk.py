"""The two SDKs by one interface: imported on demand, what they log captured, their errors mapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from qzoo.errors import TargetError, TargetUnavailable

SHOWN = 4
"""Of the warnings and errors in a log, as many of the last go into an error's message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One line of an SDK's log. `severity` is ILogger.Severity's number: 0 internal error, 1 error, ... 4 verbose."""

    severity: int
    text: str


@dataclass(frozen=True, slots=True)
class Sdk:
    """An imported SDK: its target's name, its module, and the logger that everything made with it must be given."""

    name: str
    trt: Any
    logger: Any

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds for GPUs that aren't here."""
        return hasattr(self.trt, "ComputeCapability")

    def architectures(self) -> tuple[str, ...]:
        """The GPU architectures it builds for ahead of time, as "sm89"; none where it can't."""
        if not self.ahead_of_time:
            return ()
        names = self.trt.ComputeCapability.__members__
        return tuple(sorted((name.lower() for name in names if name.startswith("SM")), key=lambda name: int(name[2:])))

    @contextmanager
    def captured(self) -> Iterator[list[Message]]:
        """What is logged inside. A RuntimeError that the SDK raises comes out as TargetError, with the log."""
        messages: list[Message] = []
        self.logger.sinks.append(messages)
        try:
            yield messages
        except (RuntimeError, MemoryError) as error:
            raise self.failed(str(error), messages) from error
        finally:
            self.logger.sinks.remove(messages)

    def failed(self, what: str, log: list[Message]) -> TargetError:
        """An error that says what failed and shows the end of the log, on one line."""
        lines = [" ".join(message.text.split()) for message in log if message.severity <= _WARNING]
        said = "; ".join(dict.fromkeys(lines[-SHOWN:]))
        return TargetError(f"{self.name}: {' '.join(what.split())}" + (f"; its log: {said}" if said else ""))


_WARNING = 2


def made(sdk: Sdk, thing: Any, what: str, log: list[Message]) -> Any:  # noqa: ANN401 - an SDK's object
    """What an SDK made. Raises TargetError where that is None, which is how an SDK says that it couldn't."""
    if thing is None:
        raise sdk.failed(f"{what} could not be made", log)
    return thing


@cache
def load_sdk(name: str, module: str) -> Sdk:
    """Import an SDK. Raises TargetUnavailable where it isn't installed or its libraries don't load.

    Once a process: an SDK keeps the first logger it is given and ignores all others.
    """
    try:
        trt: Any = import_module(module)
    except (ImportError, OSError) as error:
        raise TargetUnavailable(
            f"target {name}: {module} can't be imported ({error}); pip install 'qzoo[{name}]'"
        ) from error

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.sinks: list[list[Message]] = []

        def log(self, severity: Any, text: str) -> None:  # noqa: ANN401 - the SDK's own enumeration
            for sink in self.sinks:
                sink.append(Message(int(severity), text))

    return Sdk(name, trt, Logger())
