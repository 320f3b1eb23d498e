"""Running an engine: what can be shown without a GPU, on a stand-in for one."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from gpu_stand_in import LARGEST, Doubling, Runtime, StandInSdk

from qzoo.backends.trt.cuda import Buffer, Cuda
from qzoo.backends.trt.gpu import cuda_runtime, why_no_gpu
from qzoo.backends.trt.run import Session, Tensor, TrtEngine, layer_times, read_plan
from qzoo.engine import LoadedEngine
from qzoo.errors import IntegrityError, TargetError, UsageError
from qzoo.records import EngineRecord, Target, TensorInfo, digest_of
from qzoo.spec import Preprocess

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def session(runtime: Runtime | None = None, **options) -> Session:
    runtime = runtime or Runtime()
    return Session(StandInSdk(Doubling(runtime)), b"plan", Cuda(runtime), **options)


@pytest.mark.parametrize("graphs", [True, False])
def test_inputs_go_to_the_gpu_and_outputs_come_back(graphs):
    one = session(graphs=graphs)
    for batch in (X, X[:1], np.ones((LARGEST, 3), np.float32), X):
        np.testing.assert_array_equal(one.run({"input": batch})["output"], 2 * batch)


def test_what_is_returned_is_not_overwritten_by_the_next_call():
    one = session()
    first = one.run({"input": X})["output"]
    one.run({"input": 5 * X})
    np.testing.assert_array_equal(first, 2 * X)


def test_a_graph_is_captured_once_for_each_shape():
    runtime = Runtime()
    one = session(runtime)
    for batch in (X, X, X[:1], X, X[:1]):
        one.run({"input": batch})
    assert runtime.calls.count("cudaStreamBeginCapture") == 2
    assert runtime.calls.count("cudaGraphLaunch") == 5


def test_where_nothing_can_be_captured_it_runs_without_a_graph_and_says_so(caplog):
    one = session(Runtime(fails="cudaStreamEndCapture"))
    np.testing.assert_array_equal(one.run({"input": X})["output"], 2 * X)
    assert "runs without a CUDA graph: CUDA: the stream can't be captured: cudaErrorMemoryAllocation" in caplog.text


def test_a_shape_outside_the_profile_is_refused():
    with pytest.raises(TargetError, match=r"input input was not taken in shape \(5, 3\)"):
        session().run({"input": np.zeros((LARGEST + 1, 3), np.float32)})


def test_an_engine_that_cannot_be_deserialized_is_an_error():
    with pytest.raises(TargetError, match="the engine could not be made"):
        Session(StandInSdk(None), b"plan", Cuda(Runtime()))


def test_buffers_are_planned_for_the_largest_shape():
    tensor = Tensor("x", True, (4, 3, 8, 8), np.dtype(np.float16))
    assert tensor.size(tensor.largest) == 4 * 3 * 8 * 8 * 2
    assert tensor.size(()) == 2
    with pytest.raises(TargetError, match=r"tensor x has the shape \(-1, 3\)"):
        tensor.size((-1, 3))


def test_a_tensor_larger_than_its_buffer_is_refused():
    with pytest.raises(TargetError, match="needs 24 bytes; 16 were planned"):
        Buffer(0, 0, 16).array((2, 3), np.dtype(np.float32))


@pytest.mark.parametrize("fails", ["cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_what_cuda_refuses_is_an_error_by_cudas_own_name(fails):
    with pytest.raises(TargetError, match=f"CUDA: {fails} failed with cudaErrorMemoryAllocation"):
        session(Runtime(fails=fails)).run({"input": X})


def test_all_that_was_made_is_freed_with_the_session():
    runtime = Runtime()
    one = session(runtime)
    one.run({"input": X})
    del one
    gc.collect()
    assert runtime.memory == {}
    for made, freed in (
        ("cudaMallocHost", "cudaFreeHost"),
        ("cudaStreamCreate", "cudaStreamDestroy"),
        ("cudaGraphInstantiate", "cudaGraphExecDestroy"),
    ):
        assert runtime.calls.count(made) == runtime.calls.count(freed)
    assert runtime.calls[-1] == "cudaStreamDestroy"


def test_a_trace_has_the_parts_of_each_call_in_order():
    one = session()
    one.run({"input": X})
    traces = one.trace(rounds=3, seconds=0, warm_up_seconds=0)
    assert len(traces) == 3
    for trace in traces:
        # the stand-in's clock goes on by 1 ms at each event
        assert trace.compute[0] == trace.to_device[1]
        assert [end - start for start, end in (trace.to_device, trace.compute, trace.to_host)] == [1, 1, 1]


def test_a_profile_has_each_layer_in_order_and_leaves_the_warm_up_out():
    one = session()
    one.run({"input": X})
    double, copy = one.profile(rounds=5)
    assert (double.name, double.calls, double.total_ms, double.median_ms, double.percentage) == ("double", 5, 15, 3, 75)
    assert (copy.name, copy.percentage) == ("copy", 25)
    assert one._context.profiler is None


def test_no_layers_take_no_time():
    assert layer_times({}) == ()


def test_a_plan_is_read_only_with_its_own_bytes(tmp_path: Path):
    path = tmp_path / "engine.plan"
    path.write_bytes(b"engine")
    assert read_plan(path, digest_of(b"engine")) == b"engine"
    path.write_bytes(b"engin\x64")
    with pytest.raises(IntegrityError, match="was changed: expected sha256:") as raised:
        read_plan(path, digest_of(b"engine"))
    assert raised.value.exit_code == 6
    with pytest.raises(IntegrityError, match="can't be read"):
        read_plan(tmp_path / "none", digest_of(b""))


def test_a_flipped_byte_is_found_before_a_gpu_is_looked_for(rtx, built, tmp_path):
    data = bytearray(built.path.read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / built.path.name
    changed.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"engine\.plan was changed"):
        rtx.load(changed, built.record)


@pytest.mark.skipif(not why_no_gpu(), reason="there is a CUDA GPU here")
def test_without_a_gpu_cuda_itself_says_why():
    with pytest.raises(TargetError, match=r"CUDA: cudaStreamCreate failed with cudaError"):
        Cuda(cuda_runtime())


RECORD = EngineRecord(
    model="doubling",
    precision="fp32",
    target=Target(runtime="tensorrt", isa="sm89", version="11.0"),
    sha256=digest_of(b"plan"),
    size_bytes=4,
    config={},
    inputs=(TensorInfo(name="input", shape=(3,), dtype="float32"),),
    outputs=(TensorInfo(name="output", shape=(3,), dtype="float32"),),
    preprocess=Preprocess(mode="L", resize=3, crop=3, mean=(0.0,), std=(1.0,)),
    decision="argmax",
    labels=("a", "b", "c"),
    max_batch=LARGEST,
)


def test_an_engine_takes_the_batches_of_its_record_and_no_others():
    engine = TrtEngine(session(), RECORD)
    np.testing.assert_array_equal(engine.run({"input": X})["output"], 2 * X)
    with pytest.raises(UsageError, match="has a batch of 5; the engine takes 1 to 4"):
        engine.run({"input": np.zeros((5, 3), np.float32)})


def test_a_loaded_engine_tells_each_layers_time():
    layers = LoadedEngine(TrtEngine(session(), RECORD), Path("engine.plan")).profile({"input": X}, 20)
    assert [(layer.name, layer.calls) for layer in layers] == [("double", 20), ("copy", 20)]
