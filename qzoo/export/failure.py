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

import torch
from torch import fx, nn

from qzoo.errors import ExportError

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<number>\d+), in .*\n\s*(?P<line>.+)')
"""One frame of a node's `stack_trace`."""

_MACHINERY = (str(PurePath(torch.__file__).parent), str(PurePath(__file__).parent))
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


def export_error(model: nn.Module, error: Exception) -> ExportError:
    """The error that says what PyTorch's exporter failed at, why, and what to do instead."""
    causes = list(_causes(error))
    place = _translated(causes) or _traced(model, causes[-1])
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


def _translated(causes: list[BaseException]) -> _Place | None:
    """The node that was being translated; None where the exporter didn't get that far."""
    for error in reversed(causes):
        for frame, _ in reversed(list(walk_tb(error.__traceback__))):
            node = frame.f_locals.get("node")
            if isinstance(node, fx.Node) and node.op == "call_function":
                callers = list(node.meta.get("nn_module_stack", {}).values())
                module = callers[-1][0] if callers else ""
                frames = _FRAME.finditer(node.meta.get("stack_trace") or "")
                own = [frame.group("file", "number", "line") for frame in frames if _is_networks(frame["file"])]
                return _Place(str(node.target), module, _line(*own[-1]) if own else None)
    return None


def _traced(model: nn.Module, error: BaseException) -> _Place:
    """The innermost module and line that the forward got to."""
    paths = {id(module): path for path, module in model.named_modules()}
    called = [paths.get(id(frame.f_locals.get("self"))) for frame, _ in walk_tb(error.__traceback__)]
    inner = [path for path in called if path]
    own = [frame for frame in extract_tb(error.__traceback__) if _is_networks(frame.filename)]
    line = _line(own[-1].filename, own[-1].lineno, own[-1].line) if own else None
    return _Place(None, inner[-1] if inner else "", line)


def _line(file: str, number: object, text: str | None) -> str:
    place = f"{PurePath(file).name}:{number}"
    return f"`{text.strip()}` ({place})" if text else place


def _is_networks(file: str) -> bool:
    return not file.startswith(_MACHINERY)
