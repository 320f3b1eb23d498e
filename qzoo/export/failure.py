"""Where in a network PyTorch's exporter failed: the operator, the module that calls it, and the line.

It fails in one of two steps. While torch.export runs the forward, the exception's frames lead to the line that it
stumbled over. While its program is translated, a frame holds the node, which knows where it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from traceback import extract_tb, walk_tb
from typing import NamedTuple

import torch
from torch import fx, nn

from qzoo.errors import ExportError
from qzoo.quant import derive
from qzoo.quant.derive import DerivedNetwork

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<number>\d+), in .*\n\s*(?P<line>.+)')
"""One frame of a node's `stack_trace`."""

_MACHINERY = tuple(PurePath(one).parent for one in (torch.__file__, derive.__file__, __file__))
"""Where the lines of the exporter are, not of a network."""

_LACKING, _BRANCHING = "No ONNX function found", "data-dependent"
"""What PyTorch says where ONNX has no such operator, and where the forward needs a value to go on."""


@dataclass(frozen=True, slots=True)
class _Place:
    """An operator, None where none is known; the path of the module that calls it, "" for the network; the line."""

    operator: str | None
    module: str
    line: str | None

    def __str__(self) -> str:
        module = self.module or "the network's own forward"
        what = f"{self.operator} in {module}" if self.operator else module
        return f"{what}, {self.line}" if self.line else what


class _Line(NamedTuple):
    """A line of source."""

    file: str
    number: str
    text: str

    def __str__(self) -> str:
        place = f"{PurePath(self.file).name}:{self.number}"
        return f"`{self.text}` ({place})" if self.text else place


def export_error(model: nn.Module, error: Exception) -> ExportError:
    """The error that says what PyTorch's exporter failed at, why, and what to do instead."""
    causes = list(_causes(error))
    place = _translated(model, causes) or _traced(model, causes[-1])
    why = str(causes[-1]).strip().partition("\n")[0] or type(causes[-1]).__name__
    if _LACKING in why:
        why, otherwise = "ONNX has no such operator", "computes it of others"
    elif _BRANCHING in why:
        why = f"a graph has no branches on values ({why.partition(' (unhinted')[0]})"
        otherwise = "computes both sides and picks with torch.where"
    else:
        otherwise = "does without it"
    advice = f"in the builder of a plugin, replace {place.module or 'it'} by a module that {otherwise}"
    return ExportError(f"torch.onnx can't export {place}: {why}; {advice}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _translated(model: nn.Module, causes: list[BaseException]) -> _Place | None:
    """The node that was being translated; None where the exporter didn't get that far."""
    for error in reversed(causes):
        for frame, _ in reversed(list(walk_tb(error.__traceback__))):
            node = frame.f_locals.get("node")
            if isinstance(node, fx.Node) and node.op == "call_function":
                callers = list(node.meta.get("nn_module_stack", {}).values())
                lines = _lines(node.meta.get("stack_trace") or "")
                return _placed(model, str(node.target), callers[-1][0] if callers else "", lines)
    return None


def _traced(model: nn.Module, error: BaseException) -> _Place:
    """The innermost module and line that the forward got to."""
    paths = {id(module): path for path, module in model.named_modules()}
    called = [paths.get(id(frame.f_locals.get("self"))) for frame, _ in walk_tb(error.__traceback__)]
    inner = [path for path in called if path]
    frames = [_Line(one.filename, str(one.lineno), (one.line or "").strip()) for one in extract_tb(error.__traceback__)]
    return _placed(model, None, inner[-1] if inner else "", [one for one in frames if _is_networks(one.file)])


def _placed(model: nn.Module, operator: str | None, module: str, lines: list[_Line]) -> _Place:
    """With the module and the line that a network was written with, if the last one is of a derived graph's code."""
    if isinstance(model, DerivedNetwork) and lines and lines[-1].file.startswith("<"):
        origin = model.origins.get(lines[-1].text.partition("=")[0].partition(":")[0].strip())
        if origin is not None:
            module, lines = origin.module, _lines(origin.stack_trace)
    return _Place(operator, module, str(lines[-1]) if lines else None)


def _lines(stack_trace: str) -> list[_Line]:
    """Those of a node's stack trace that are a network's."""
    found = [_Line(*frame.group("file", "number", "line")) for frame in _FRAME.finditer(stack_trace)]
    return [line for line in found if _is_networks(line.file)]


def _is_networks(file: str) -> bool:
    return not any(PurePath(file).is_relative_to(folder) for folder in _MACHINERY)
