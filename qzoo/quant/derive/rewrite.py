"""Editing a traced graph: an operator becomes a module of the network, called where the operator was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from qzoo.quant.derive.trace import VALUE


@dataclass(frozen=True, slots=True)
class LeftInFloat:
    """An operator or module that gets no quantizers, and why. `kind`: add, mul, ..., module or function."""

    path: str
    kind: str
    reason: str


@dataclass
class Rewriting:
    """A traced graph and the network whose modules it calls, both changed in place.

    `left` gathers what stays in float, `computed` the names of weights that the network computed in every call.
    """

    network: nn.Module
    graph: fx.Graph
    left: list[LeftInFloat] = field(default_factory=list)
    computed: set[str] = field(default_factory=set)

    def leave(self, node: fx.Node, kind: str, reason: str) -> None:
        """Record that a node stays in float."""
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        owner = owner_of(node)
        path = str(node.target) if node.op == "call_module" else f"{owner}.{name}" if owner else str(name)
        self.left.append(LeftInFloat(path, kind, reason))

    def add(self, owner: str, name: str, module: nn.Module) -> str:
        """Make `module` a child of the module at `owner`, called `name` or, where that is taken, `name_1`, ...

        Returns its path.
        """
        parent = self.network.get_submodule(owner)
        unique, count = name, 0
        while hasattr(parent, unique):
            count += 1
            unique = f"{name}_{count}"
        parent.add_module(unique, module.train(parent.training))
        return f"{owner}.{unique}" if owner else unique

    def put(self, node: fx.Node, path: str, args: Sequence[Any]) -> fx.Node:
        """Call the module at `path` in a node's place."""
        with self.graph.inserting_before(node):
            made = self.graph.call_module(path, tuple(args))
        return self.take_place(node, made)

    def take_place(self, node: fx.Node, made: fx.Node) -> fx.Node:
        """Let a node that computes the same have another's users, and its value's shape and owner."""
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        self.graph.erase_node(node)
        return made

    def call(self, before: fx.Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:  # noqa: ANN401
        """A new function call before a node, of the same owner."""
        with self.graph.inserting_before(before):
            made = self.graph.call_function(target, args, kwargs)
        made.meta["nn_module_stack"] = before.meta.get("nn_module_stack", {})
        inputs = fx.map_arg((args, kwargs), lambda one: one.meta[VALUE])
        mode = next(one.meta[VALUE].fake_mode for one in made.all_input_nodes if isinstance(one.meta[VALUE], Tensor))
        with mode, torch.no_grad():
            made.meta[VALUE] = target(*inputs[0], **inputs[1])
        return made

    def module_of(self, node: object) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        return self.network.get_submodule(str(node.target))


def owner_of(node: fx.Node) -> str:
    """The path of the innermost module whose forward a node stands in."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def shape_of(node: object) -> tuple[int, ...] | None:
    """The shape of what a node gives, with `trace.BATCH` for the batch; None where it is no tensor, or not known."""
    value = node.meta.get(VALUE) if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def argument(node: fx.Node, index: int, name: str, default: object = None) -> Any:  # noqa: ANN401
    """An argument of a call, by its place or its name."""
    if index < len(node.args):
        return node.args[index]
    return node.kwargs.get(name, default)


def names(node: fx.Node, *wanted: str) -> bool:
    """Whether a node calls a function or method of one of these names: torch.add, operator.add, Tensor.add."""
    if node.op == "call_method":
        return node.target in wanted
    return node.op == "call_function" and getattr(node.target, "__name__", "") in wanted
