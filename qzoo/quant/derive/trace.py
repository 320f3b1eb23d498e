"""A network as a torch.fx graph whose nodes name its modules, and know the shapes of their values.

Sizes that don't depend on the batch are plain numbers while the network is traced, so that `if x.shape[-1] > 7` and
padding that is computed from the input's size are decided, not refused. Sizes that do are nodes of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from traceback import extract_tb
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from qzoo.errors import SpecError

BATCH = 1009
"""The batch that shapes are propagated with: a prime that no channel count is a multiple of. Nothing is computed."""

_IN_PLACE = ("__setitem__", "setitem", *(f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "and", "or")))
"""What writes into its first argument, beside methods whose names end in "_"."""
VALUE = "qzoo_value"
"""The key of a node's `meta` under which its value is: tensors have shapes and types, but no data."""


Leaf = type[nn.Module] | FunctionType
"""What couldn't be traced into: a class of modules, or a function that its library made a leaf (`torch.fx.wrap`)."""


@dataclass(frozen=True)
class Traced:
    """The graph, and why each of its leaves couldn't be traced into."""

    graph: fx.Graph
    constants: Mapping[str, Tensor]
    leaves: Mapping[Leaf, str]


def trace(network: nn.Module, shape: tuple[int, ...], name: str) -> Traced:
    """Trace a network in eval mode. `shape` is its input's without the batch; `name` is the model's, for messages.

    A module that can't be traced into becomes one node, and so does every other of its class; likewise a function. The
    network itself is left as it is. Raises SpecError where its own forward can't be traced.
    """
    leaves: dict[Leaf, str] = {}
    constant_zeros = True
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    while True:
        # modules may keep what they computed: that of a trace is no use to anybody
        tracer = _Tracer(frozenset(leaves), shape, constant_zeros=constant_zeros)
        copied = deepcopy(network, dict(tensors))
        known = {path for path, _ in copied.named_buffers()}
        try:
            graph = tracer.trace(copied)
        except Exception as error:  # whatever a forward raises when it gets no real tensor
            if isinstance(tracer.failed, FunctionType):
                leaves[tracer.failed] = _reason(error)
                continue
            failed = network.get_submodule(tracer.failed or "")
            if failed is network or type(failed) in leaves:
                raise SpecError(
                    f"{name}: the forward of {type(failed).__name__} ({tracer.failed or 'the network itself'}) can't "
                    f"be traced, so that no placement can be derived: {_reason(error)}; move what depends on values "
                    "into a module of its own, which then stays one, or declare fusions and swaps and "
                    'placement="declared"'
                ) from error
            leaves[type(failed)] = _reason(error)
            continue
        if constant_zeros and any(_writes_to_a_constant(node) for node in graph.nodes):
            constant_zeros = False  # or each call would write into what the one before left
            continue
        for node in graph.nodes:
            node.meta.pop("is_wrapped", None)  # or the graph's code would tell all tracers of this process to wrap it
        constants = {path: value for path, value in vars(copied).items() if isinstance(value, Tensor)}
        constants |= {path: value for path, value in copied.named_buffers() if path not in known}
        return Traced(graph, constants, leaves)


def _writes_to_a_constant(node: fx.Node) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = (name.endswith("_") and not name.startswith("__")) or name in _IN_PLACE
    changed = node.args[0] if in_place and node.args else None
    while isinstance(changed, fx.Node) and changed.op != "get_attr":
        changed = changed.args[0] if changed.args else None  # it may be a view
    return isinstance(changed, fx.Node) and str(changed.target).startswith("_tensor_constant")


def _reason(error: Exception) -> str:
    """What a forward stumbled over: the innermost line of it, and the first sentence of the message."""
    frames = [frame for frame in extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    line = f"`{frames[-1].line}`: " if frames else ""
    return f"{line}{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _is_machinery(file: str) -> bool:
    return file == __file__ or "/torch/" in file


class _Value(fx.Proxy):
    """What a forward computes with while it is traced: a node, and what is known of its value."""

    @property
    def shape(self) -> Any:  # noqa: ANN401 - numbers and nodes
        known = self.node.meta.get(VALUE)
        if not isinstance(known, Tensor):
            return super().__getattr__("shape")
        return tuple(self._size(axis, size) for axis, size in enumerate(known.shape))

    @property
    def ndim(self) -> Any:  # noqa: ANN401
        known = self.node.meta.get(VALUE)
        return known.ndim if isinstance(known, Tensor) else super().__getattr__("ndim")

    @property
    def dtype(self) -> Any:  # noqa: ANN401
        known = self.node.meta.get(VALUE)
        return known.dtype if isinstance(known, Tensor) else super().__getattr__("dtype")

    def dim(self) -> Any:  # noqa: ANN401
        return self.ndim

    def size(self, dim: int | None = None) -> Any:  # noqa: ANN401
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> Any:  # noqa: ANN401
        known = self.node.meta.get(VALUE)
        if isinstance(known, Tensor) and not any(size and size % BATCH == 0 for size in known.shape):
            return known.numel()
        return self.tracer.create_proxy("call_method", "numel", (self,), {})

    def new_zeros(self, *size: Any, **settings: Any) -> Any:  # noqa: ANN401
        """Of a size that is known, a constant: what is known and written into it, as a mask, makes another constant."""
        known = self.node.meta.get(VALUE)
        sizes = size[0] if len(size) == 1 and isinstance(size[0], tuple | list) else size
        constant = isinstance(self.tracer, _Tracer) and self.tracer.constant_zeros
        if constant and isinstance(known, Tensor) and sizes and all(isinstance(one, int) for one in sizes):
            return torch.zeros(sizes, dtype=settings.get("dtype") or known.dtype)
        return self.tracer.create_proxy("call_method", "new_zeros", (self, *size), settings)

    def is_floating_point(self) -> bool:
        return bool(self.dtype.is_floating_point)

    def __len__(self) -> int:
        known = self.node.meta.get(VALUE)
        if isinstance(known, tuple | list):
            return len(known)
        if isinstance(known, Tensor) and known.shape[0] % BATCH:
            return int(known.shape[0])
        return super().__len__()

    def __iter__(self) -> Iterator[fx.Proxy]:
        known = self.node.meta.get(VALUE)
        if isinstance(known, tuple | list) or (isinstance(known, Tensor) and known.shape[0] % BATCH):
            return (self[index] for index in range(len(known)))  # type: ignore[index]  # fx sets its operators later
        return super().__iter__()

    def _size(self, axis: int, size: int) -> Any:  # noqa: ANN401
        if size % BATCH or not size:
            return size
        return self.tracer.create_proxy("call_method", "size", (self, axis), {})


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True
    record_stack_traces = True

    def __init__(self, leaves: frozenset[Leaf], shape: tuple[int, ...], *, constant_zeros: bool) -> None:
        super().__init__()
        self.constant_zeros = constant_zeros
        self.failed: str | FunctionType | None = None
        self._leaves, self._shape = leaves, shape
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._computing = False

    def create_args_for_root(self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None) -> Any:  # noqa: ANN401, ARG002, FBT001 - torch's signature
        # one input; whatever else a forward takes has its default
        return root_fn, [self.root, self.create_proxy("placeholder", "input", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """PyTorch's own modules, qzoo's points, and what can't be traced."""
        if type(m) in self._leaves or type(m).__module__.startswith("qzoo.quant.modules"):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:  # noqa: ANN401
        """Note the innermost module that fails."""
        if self._computing:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **named: Any) -> fx.Proxy:  # noqa: ANN401
        """What a function computes that isn't torch's own, but a leaf because its library wants it to be one."""
        if kind == "call_function" and isinstance(target, FunctionType) and self._opens(target):
            return self._inside(target, args, kwargs)
        return super().create_proxy(kind, target, args, kwargs, *others, **named)

    def _opens(self, function: FunctionType) -> bool:
        return (function.__module__ or "").partition(".")[0] != "torch" and function not in self._leaves

    def _inside(self, function: FunctionType, args: Any, kwargs: Any) -> fx.Proxy:  # noqa: ANN401
        try:
            result = function(*args, **kwargs)
            if isinstance(result, fx.Proxy):
                return result
            raise TypeError(f"{function.__name__} gives a {type(result).__name__}, not one tensor")  # noqa: TRY301 - a leaf then, like one that fails
        except Exception:
            self.failed = self.failed or function
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:  # noqa: ANN401
        """A parameter is a node, but where a leaf computes it is itself."""
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A value whose shape is known where it can be."""
        return _Value(node, self)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:  # noqa: ANN401
        """A node with its value."""
        node = super().create_node(kind, *args, **kwargs)
        self._compute(node)
        return node

    def _compute(self, node: fx.Node) -> None:
        if any(VALUE not in one.meta for one in node.all_input_nodes):
            return
        self._computing = True
        try:
            with self._mode, torch.no_grad():
                node.meta[VALUE] = self._value_of(node)
        except Exception as error:  # noqa: BLE001 - what can't be computed without data has no known shape
            node.meta["qzoo_unknown"] = str(error)
        finally:
            self._computing = False

    def _value_of(self, node: fx.Node) -> Any:  # noqa: ANN401
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: one.meta[VALUE])
        if node.op == "placeholder":
            return torch.empty(BATCH, *self._shape)
        if node.op == "get_attr":
            found: Any = self.root
            for part in str(node.target).split("."):
                found = getattr(found, part)
            return self._mode.from_tensor(found) if isinstance(found, Tensor) else found
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs) if callable(node.target) else args
