"""What running an engine needs of CUDA: a stream, buffers on both sides, events, graphs. Written to cuda-python's
documentation (`cuda.bindings.runtime` 13), where every call returns its status first; not yet executed on a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qzoo.errors import TargetError


@dataclass(frozen=True, slots=True)
class Buffer:
    """The same tensor on the GPU and in pinned host memory, `size` bytes each: the addresses of both."""

    device: int
    host: int
    size: int

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The host side's first bytes as an array, shared and not copied. Raises TargetError where it is too small."""
        count = int(np.prod(shape, dtype=np.int64))
        if count * dtype.itemsize > self.size:
            raise TargetError(
                f"a tensor of shape {shape} needs {count * dtype.itemsize} bytes; {self.size} were planned"
            )
        memory = memoryview((ctypes.c_byte * self.size).from_address(self.host)).cast("B")
        return np.frombuffer(memory, dtype, count).reshape(shape)


class Cuda:
    """CUDA's runtime, errors mapped; what it made is freed by `close`, the last first."""

    def __init__(self, runtime: Any) -> None:  # noqa: ANN401 - cuda-bindings has no types
        self._runtime = runtime
        self._made = ExitStack()
        self.stream = self._kept(self.call("cudaStreamCreate"), "cudaStreamDestroy")

    def call(self, name: str, *arguments: Any) -> Any:  # noqa: ANN401
        """One function's result. Raises TargetError with CUDA's own name for what went wrong."""
        status, *values = getattr(self._runtime, name)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise TargetError(
                f"CUDA: {name} failed with {status.name}; see whether the GPU has memory left (nvidia-smi)"
            )
        return values[0] if values else None

    def buffer(self, size: int) -> Buffer:
        """A buffer of at least one byte on both sides."""
        size = max(size, 1)
        device = self._kept(self.call("cudaMalloc", size), "cudaFree")
        host = self._kept(self.call("cudaMallocHost", size), "cudaFreeHost")
        return Buffer(int(device), int(host), size)

    def to_device(self, buffer: Buffer, size: int) -> None:
        """Enqueue a copy of the first `size` bytes."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", buffer.device, buffer.host, size, kind, self.stream)

    def to_host(self, buffer: Buffer, size: int) -> None:
        """Enqueue a copy of the first `size` bytes."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", buffer.host, buffer.device, size, kind, self.stream)

    def synchronize(self) -> None:
        """Wait until all that was enqueued is done."""
        self.call("cudaStreamSynchronize", self.stream)

    def captured(self, enqueue: Callable[[], None]) -> Any:  # noqa: ANN401
        """What `enqueue` puts on the stream, as a graph to `launch`. Raises TargetError where it can't be captured."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", self.stream, mode)
        try:
            enqueue()
        finally:  # also after an error, or the stream would stay in capture
            status, graph = self._runtime.cudaStreamEndCapture(self.stream)
        if status != self._runtime.cudaError_t.cudaSuccess:
            raise TargetError(f"CUDA: the stream can't be captured: {status.name}")
        try:
            return self._kept(self.call("cudaGraphInstantiate", graph, 0), "cudaGraphExecDestroy")
        finally:
            self.call("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:  # noqa: ANN401
        """Enqueue a captured graph."""
        self.call("cudaGraphLaunch", graph, self.stream)

    def event(self) -> Any:  # noqa: ANN401
        """An event to `record`."""
        return self._kept(self.call("cudaEventCreate"), "cudaEventDestroy")

    def record(self, event: Any) -> None:  # noqa: ANN401
        """Enqueue an event: the moment at which all before it is done."""
        self.call("cudaEventRecord", event, self.stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:  # noqa: ANN401
        """Milliseconds between two events that have happened."""
        return float(self.call("cudaEventElapsedTime", start, end))

    def close(self) -> None:
        """Free all that was made."""
        self._made.close()

    def _kept(self, made: Any, destroy: str) -> Any:  # noqa: ANN401
        self._made.callback(self.call, destroy, made)
        return made
