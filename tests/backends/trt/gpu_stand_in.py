"""A stand-in for a GPU, as no test machine has one: CUDA's calls on this machine's memory, and an SDK whose engine
doubles its input. It shows that buffers, shapes, graphs and events are put together rightly; not that TensorRT runs.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

LARGEST = 4


class Status:
    def __init__(self, name: str) -> None:
        self.name = name


class Runtime:
    """What of `cuda.bindings.runtime` is called. `fails`: the name of a function that does."""

    def __init__(self, fails: str | None = None) -> None:
        self.ok, self.fails, self.calls, self.memory, self.recording = Status("cudaSuccess"), fails, [], {}, None
        self.cudaError_t = SimpleNamespace(cudaSuccess=self.ok)
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        self.clock = 0.0

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name == self.fails:
                self.recording = None
                return (Status("cudaErrorMemoryAllocation"), None)
            found = getattr(self, f"on_{name}", lambda *_: None)(*arguments)
            return (self.ok,) if found is None else (self.ok, found)

        if not name.startswith("cuda"):
            raise AttributeError(name)
        return call

    def on_cudaStreamCreate(self):  # noqa: N802 - CUDA's names
        return 7

    def on_cudaMalloc(self, size):  # noqa: N802
        block = (ctypes.c_byte * size)()
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    on_cudaMallocHost = on_cudaMalloc  # noqa: N815

    def on_cudaFree(self, address):  # noqa: N802
        del self.memory[address]

    on_cudaFreeHost = on_cudaFree  # noqa: N815

    def on_cudaMemcpyAsync(self, to, source, size, kind, stream):  # noqa: N802
        ctypes.memmove(to, source, size)

    def on_cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        self.recording = []

    def on_cudaStreamEndCapture(self, stream):  # noqa: N802
        made, self.recording = self.recording, None
        return made

    def on_cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        return graph

    def on_cudaGraphLaunch(self, graph, stream):  # noqa: N802
        for work in graph:
            work()

    def on_cudaEventCreate(self):  # noqa: N802
        return SimpleNamespace(at=0.0)

    def on_cudaEventRecord(self, event, stream):  # noqa: N802
        self.clock += 1.0
        event.at = self.clock

    def on_cudaEventElapsedTime(self, start, end):  # noqa: N802
        return end.at - start.at


class Doubling:
    """An engine: output (N, 3) = 2 * input (N, 3), float32."""

    num_io_tensors = 2

    def __init__(self, cuda: Runtime) -> None:
        self.cuda = cuda

    def get_tensor_name(self, index):
        return ("input", "output")[index]

    def get_tensor_mode(self, name):
        return name

    def get_tensor_shape(self, name):
        return (-1, 3)

    def get_tensor_profile_shape(self, name, index):
        return [(1, 3), (2, 3), (LARGEST, 3)]

    def get_tensor_dtype(self, name):
        return "float"

    def create_execution_context(self):
        return DoublingContext(self.cuda)


class DoublingContext:
    """Its execution context."""

    def __init__(self, cuda: Runtime) -> None:
        self.cuda, self.shape, self.addresses, self.profiler = cuda, (-1, 3), {}, None

    def get_tensor_shape(self, name):
        return self.shape

    def set_input_shape(self, name, shape):
        fits = 1 <= shape[0] <= LARGEST and shape[1:] == (3,)
        self.shape = shape if fits else self.shape
        return fits

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        shape = self.shape

        def work():
            ends = [
                np.frombuffer((ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[name]), np.float32)
                for name in ("input", "output")
            ]
            ends[1][:] = 2 * ends[0]

        if self.cuda.recording is not None:
            self.cuda.recording.append(work)
            return True
        work()
        if self.profiler is not None:
            self.profiler.report_layer_time("double", 3.0)
            self.profiler.report_layer_time("copy", 1.0)
        return True


class StandInSdk:
    """What of an Sdk a session uses."""

    name, logger = "tensorrt", None

    def __init__(self, engine: Doubling | None) -> None:
        runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
        self.trt = SimpleNamespace(
            Runtime=lambda logger: runtime,
            TensorIOMode=SimpleNamespace(INPUT="input"),
            nptype=lambda name: np.float32,
            IProfiler=object,
        )

    @contextmanager
    def captured(self):
        yield []

    def failed(self, what, log):
        from qzoo.errors import TargetError

        return TargetError(f"{self.name}: {what}")
