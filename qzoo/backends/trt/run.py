"""Runs engines on a GPU. Written to the documentation of TensorRT's Python API (named tensors, `execute_async_v3`),
which both flavours share; not yet executed on a GPU.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qzoo.backends.base import checked_inputs
from qzoo.backends.trt.cuda import Buffer, Cuda
from qzoo.backends.trt.sdk import Sdk, made
from qzoo.errors import IntegrityError, TargetError
from qzoo.hookspecs import Engine
from qzoo.records import EngineRecord, LayerTime, digest_of

LOGGER = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An engine's input or output, the largest shape of it, and its type."""

    name: str
    is_input: bool
    largest: tuple[int, ...]
    dtype: np.dtype[Any]

    def size(self, shape: tuple[int, ...]) -> int:
        """The bytes of it in that shape. Raises TargetError for one that isn't known."""
        if any(dim < 0 for dim in shape):
            raise TargetError(f"tensor {self.name} has the shape {shape}, which its inputs don't decide")
        return int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """When the parts of one call began and ended, in milliseconds since the first call."""

    enqueue: tuple[float, float]
    to_device: tuple[float, float]
    compute: tuple[float, float]
    to_host: tuple[float, float]


class Session:
    """A deserialized engine with its context, a stream, and a buffer for each tensor, large enough for every shape."""

    def __init__(self, sdk: Sdk, plan: bytes, cuda: Cuda, *, graphs: bool = True) -> None:
        self._sdk, self._cuda, self._graphs_wanted = sdk, cuda, graphs
        self._finalizer = weakref.finalize(self, cuda.close)
        with sdk.captured() as log:
            self._runtime = made(sdk, sdk.trt.Runtime(sdk.logger), "a runtime", log)
            self._engine = made(sdk, self._runtime.deserialize_cuda_engine(plan), "the engine", log)
            self._context = made(sdk, self._engine.create_execution_context(), "an execution context", log)
        self.tensors = self._read_tensors()
        self._buffers = {tensor.name: self._buffer(tensor) for tensor in self.tensors}
        self._graphs: dict[tuple[tuple[str, tuple[int, ...]], ...], Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One batch. The arrays returned are the caller's own."""
        self.reshape({name: array.shape for name, array in inputs.items()})
        for name, array in inputs.items():
            self._host(name)[...] = array
        self._copy(to_device=True)
        self._compute()
        self._copy(to_device=False)
        self._cuda.synchronize()
        return {tensor.name: self._host(tensor.name).copy() for tensor in self.tensors if not tensor.is_input}

    def reshape(self, shapes: Shapes) -> None:
        """Set the inputs' shapes, and by them the outputs'. Raises TargetError for one outside the profile."""
        for name, shape in shapes.items():
            if self._shapes.get(name) != shape and not self._context.set_input_shape(name, shape):
                raise TargetError(
                    f"{self._sdk.name}: input {name} was not taken in shape {shape}; see the engine's profile"
                )
        self._shapes = {tensor.name: tuple(self._context.get_tensor_shape(tensor.name)) for tensor in self.tensors}

    def trace(self, rounds: int, seconds: float, warm_up_seconds: float) -> list[Trace]:
        """Time calls at the shapes that are set, until both `rounds` and `seconds` are reached; transfers included."""
        self._repeat(1, warm_up_seconds)
        base, events = self._cuda.event(), [self._cuda.event() for _ in range(4)]
        self._cuda.record(base)
        self._cuda.synchronize()
        began, traces = perf_counter(), list[Trace]()
        while len(traces) < rounds or perf_counter() - began < seconds:
            start = perf_counter()
            self._cuda.record(events[0])
            self._copy(to_device=True)
            self._cuda.record(events[1])
            self._compute()
            self._cuda.record(events[2])
            self._copy(to_device=False)
            self._cuda.record(events[3])
            end = perf_counter()
            self._cuda.synchronize()
            a, b, c, d = (self._cuda.elapsed_ms(base, event) for event in events)
            enqueue = ((start - began) * 1e3, (end - began) * 1e3)
            traces.append(Trace(enqueue=enqueue, to_device=(a, b), compute=(b, c), to_host=(c, d)))
        return traces

    def profile(self, rounds: int) -> tuple[LayerTime, ...]:
        """Each layer's time at the shapes that are set, in the order in which they run; slower than without it."""
        profiler = _profiler(self._sdk)
        self._enqueue()
        self._cuda.synchronize()
        self._context.profiler = profiler
        try:
            for _ in range(rounds):
                self._enqueue()  # a graph reports no layers
                self._cuda.synchronize()
        finally:
            self._context.profiler = None
        return layer_times(profiler.times)

    def inspect(self) -> str:
        """The engine's layers, as the inspector writes them in JSON."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(self._sdk.trt.LayerInformationFormat.JSON))

    def largest(self) -> dict[str, tuple[int, ...]]:
        """The largest shape of each input."""
        return {tensor.name: tensor.largest for tensor in self.tensors if tensor.is_input}

    def _repeat(self, rounds: int, seconds: float) -> None:
        began, done = perf_counter(), 0
        while done < rounds or perf_counter() - began < seconds:
            self._copy(to_device=True)
            self._compute()
            self._copy(to_device=False)
            self._cuda.synchronize()
            done += 1

    def _read_tensors(self) -> tuple[Tensor, ...]:
        engine, trt = self._engine, self._sdk.trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in inputs:
            if -1 in tuple(engine.get_tensor_shape(name)):
                self._context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[2]))
        return tuple(
            Tensor(
                name,
                name in inputs,
                tuple(self._context.get_tensor_shape(name)),
                np.dtype(trt.nptype(engine.get_tensor_dtype(name))),
            )
            for name in names
        )

    def _buffer(self, tensor: Tensor) -> Buffer:
        buffer = self._cuda.buffer(tensor.size(tensor.largest))
        if not self._context.set_tensor_address(tensor.name, buffer.device):
            raise TargetError(f"{self._sdk.name}: the address of tensor {tensor.name} was not taken")
        return buffer

    def _host(self, name: str) -> NDArray[Any]:
        tensor = next(one for one in self.tensors if one.name == name)
        return self._buffers[name].array(self._shapes[name], tensor.dtype)

    def _copy(self, *, to_device: bool) -> None:
        copy = self._cuda.to_device if to_device else self._cuda.to_host
        for tensor in self.tensors:
            if tensor.is_input == to_device:
                copy(self._buffers[tensor.name], tensor.size(self._shapes[tensor.name]))

    def _compute(self) -> None:
        """Through a CUDA graph for these shapes, captured the first time they come."""
        key = tuple(sorted(self._shapes.items()))
        if self._graphs_wanted and key not in self._graphs:
            self._graphs[key] = self._capture()
        graph = self._graphs.get(key)
        if graph is None:
            self._enqueue()
        else:
            self._cuda.launch(graph)

    def _capture(self) -> Any:  # noqa: ANN401 - CUDA's graph, or None where there can be none
        self._enqueue()  # the first call sets up what a capture may not
        self._cuda.synchronize()
        try:
            return self._cuda.captured(self._enqueue)
        except TargetError as error:
            LOGGER.warning("runs without a CUDA graph: %s", error)
            return None

    def _enqueue(self) -> None:
        with self._sdk.captured() as log:
            if not self._context.execute_async_v3(int(self._cuda.stream)):
                raise self._sdk.failed("the engine could not be enqueued", log)


class TrtEngine(Engine):
    """An engine of either flavour, in float32 at its ends."""

    def __init__(self, session: Session, record: EngineRecord) -> None:
        self._session, self.record = session, record

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Run one batch."""
        return self._session.run(checked_inputs(self.record, inputs))

    def profile(self, inputs: Mapping[str, NDArray[np.float32]], rounds: int) -> tuple[LayerTime, ...]:
        """Each layer's time on one batch."""
        self._session.run(checked_inputs(self.record, inputs))
        return self._session.profile(rounds)


def read_plan(path: Path, sha256: str) -> bytes:
    """An engine's bytes, the very ones that were checked: to deserialize others is to run unknown native code.

    Raises IntegrityError unless they have that SHA-256.
    """
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} can't be read: {error.strerror}; build or fetch it again") from error
    found = digest_of(plan)
    if found != sha256:
        raise IntegrityError(
            f"{path} was changed: expected sha256:{sha256}, found sha256:{found}; build or fetch it again"
        )
    return plan


def layer_times(times: Mapping[str, Sequence[float]]) -> tuple[LayerTime, ...]:
    """Of milliseconds by layer and call."""
    total = sum(sum(own) for own in times.values())
    return tuple(
        LayerTime(
            name=name,
            calls=len(own),
            total_ms=float(sum(own)),
            median_ms=float(np.median(own)),
            percentage=100 * sum(own) / total if total else 0.0,
        )
        for name, own in times.items()
    )


def _profiler(sdk: Sdk) -> Any:  # noqa: ANN401 - a class of the SDK's own
    class Profiler(sdk.trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.setdefault(layer_name, []).append(ms)

    return Profiler()
