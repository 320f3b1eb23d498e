"""Engines that TensorRT-RTX really builds, and what it refuses to."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx_text import graph

from qzoo.backends.trt.build import build_plan, profiles_of, read_graph
from qzoo.backends.trt.sdk import load_sdk
from qzoo.backends.trt.settings import Settings, build_for, configure
from qzoo.errors import TargetError, TargetUnsupported, UsageError
from qzoo.pipeline.assemble import serialize
from qzoo.records import digest_of, encode, file_digest
from qzoo.spec import BatchProfile, Recipe

FIXED = BatchProfile(min=8, opt=8, max=8)
CONFIG = {"compute_capabilities": "sm89", "batch": "1:4:8"}
FEATURES = "g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }"


@pytest.fixture(scope="module")
def sdk(rtx):
    return load_sdk(rtx.name, rtx.module)


@pytest.fixture
def refusal(rtx, tmp_path):
    """What building a graph is refused with, on one line and with no file left."""

    def run(model: ir.Model | bytes, kind: type[Exception] = TargetError, **changes: str) -> str:
        out = tmp_path / "engine.plan"
        with pytest.raises(kind) as raised:
            rtx.build(model if isinstance(model, bytes) else serialize(model), {**CONFIG, **changes}, out)
        assert "\n" not in str(raised.value)
        assert not out.exists()
        return str(raised.value)

    return run


def test_the_record_says_what_it_is_built_from_and_for(rtx, built, portable):
    record, target = built.record, rtx.target_for("sm86+sm89+sm120")
    lowered = rtx.lower(portable, Recipe(target=rtx.name, precision="int8", roles=rtx.roles), target)
    assert str(record.target) == "tensorrt-rtx/sm86+sm89+sm120"
    assert record.target.version == load_sdk(rtx.name, rtx.module).trt.__version__
    assert record.config == {
        "profiling_verbosity": "DETAILED",
        "compute_capabilities": "sm86+sm89+sm120",
        "batch": "1:8:32",
    }
    assert record.max_batch == 32
    assert record.graph_sha256 == digest_of(serialize(lowered))
    assert record.sha256 == file_digest(built.path)
    assert record.layers_sha256 == digest_of(encode(built.layers))


def test_a_fixed_batch_gives_the_same_bytes_again(build):
    assert build(FIXED).record.sha256 == build(FIXED).record.sha256


def test_a_range_of_batches_gives_an_engine_of_the_same_layers_and_size_again(build, built):
    # not the same bytes: the compiler numbers its tensors in the order in which its threads come to them
    again = build()
    assert again.record.size_bytes == built.record.size_bytes
    assert again.layers.operators == built.layers.operators
    assert [(layer.kind, layer.nodes) for layer in again.layers.layers] == [
        (layer.kind, layer.nodes) for layer in built.layers.layers
    ]


def test_one_engine_for_several_gpus_is_not_the_one_for_the_first(rtx, built, tmp_path):
    graph_bytes = serialize(graph(FEATURES))
    for gpus in ("sm86", "sm86+sm89+sm120"):
        rtx.build(graph_bytes, {**CONFIG, "compute_capabilities": gpus}, tmp_path / gpus)
    assert (tmp_path / "sm86").read_bytes() != (tmp_path / "sm86+sm89+sm120").read_bytes()


def test_without_slots_the_sdk_takes_no_compute_capability_and_says_so_only_by_returning_false(sdk):
    settings = sdk.trt.Builder(sdk.logger).create_builder_config()
    assert settings.set_compute_capability(sdk.trt.ComputeCapability.SM89, 0) is False


class WithoutSlots:
    """A builder config of the SDK's own that no slots are made in."""

    def __init__(self, config):
        object.__setattr__(self, "config", config)

    def __getattr__(self, name):
        return getattr(self.config, name)

    def __setattr__(self, name, value):
        if name != "num_compute_capabilities":
            setattr(self.config, name, value)


def test_a_compute_capability_that_is_not_taken_is_an_error(sdk):
    config = WithoutSlots(sdk.trt.Builder(sdk.logger).create_builder_config())
    with pytest.raises(TargetError, match="tensorrt-rtx: compute capability sm89 was not taken"):
        build_for(sdk, config, ("sm89",), [])


def test_the_workspace_is_the_memory_that_kernels_may_use(rtx, portable, tmp_path, refusal):
    lowered = rtx.lower(portable, Recipe(target=rtx.name, precision="int8", roles=rtx.roles), rtx.target_for("sm89"))
    rtx.build(serialize(lowered), {**CONFIG, "workspace_mib": "100"}, tmp_path / "engine")
    model = read_graph(rtx.loaded(), serialize(lowered))
    profiles = profiles_of(model, BatchProfile(min=1, opt=4, max=8))
    one_byte = Settings(gpus=("sm89",), workspace_mib=2**-20)
    with pytest.raises(TargetError, match="within workspace limit"):
        build_plan(rtx.loaded(), serialize(lowered), model, profiles, one_byte)


def test_an_optimization_level_beyond_the_highest_is_refused_and_not_cut_off(sdk):
    builder = sdk.trt.Builder(sdk.logger)
    assert configure(sdk, builder, Settings(optimization_level=5), []).builder_optimization_level == 5
    with pytest.raises(TargetError, match="optimization level 9 was not taken; it has up to 5"):
        configure(sdk, builder, Settings(optimization_level=9), [])


def test_a_timing_cache_is_a_no_op_on_rtx_and_that_is_said(rtx, tmp_path, caplog):
    cache = tmp_path / "timing.cache"
    rtx.build(serialize(graph(FEATURES)), {**CONFIG, "timing_cache": str(cache)}, tmp_path / "engine")
    assert "tensorrt-rtx makes nothing of a timing cache" in caplog.text
    assert not cache.exists()


@pytest.mark.parametrize("word", ["version_compatible", "hardware_compatible"])
def test_compatibility_modes_are_refused_on_rtx_which_would_ignore_them(refusal, word):
    assert "full TensorRT's" in refusal(graph(FEATURES), TargetUnsupported, **{word: "true"})


def test_a_gpu_that_the_sdk_does_not_build_for_is_refused(refusal):
    said = refusal(graph(FEATURES), compute_capabilities="sm86+sm90")
    assert said == "tensorrt-rtx: it doesn't build for sm90, but for sm75, sm80, sm86, sm89, sm120, sm121"


def test_an_engine_that_cannot_be_built_is_an_error_with_the_log(refusal, portable, rtx):
    lowered = rtx.lower(portable, Recipe(target=rtx.name, precision="fp32"), rtx.target_for("sm75"))
    said = refusal(lowered, compute_capabilities="sm75")
    assert said.startswith("tensorrt-rtx: the engine could not be built; its log: ")
    assert "FP32 GEMM is not supported" in said


def test_an_unsupported_operator_is_named_with_its_node(refusal):
    model = graph("g (float[N,4] x) => (float[N,4] y) { a = Relu (x)\n y = Nonsense (a) }")
    assert refusal(model, TargetUnsupported) == (
        "node 'make_y': operator Nonsense isn't supported; use others in its place"
    )


def test_what_the_parser_refuses_is_named_with_its_node(refusal):
    said = refusal(graph("g (float[N,2] x) => (float[N,2] y) { y = Conv (x, x) }"))
    assert said.startswith("tensorrt-rtx: the parser refuses the graph: node 'make_y' (Conv): ")


@pytest.mark.parametrize("data", [b"no graph at all", b"", b"\x08"])
def test_what_is_no_graph_is_refused(refusal, data):
    assert refusal(data).startswith("tensorrt-rtx: ")


def test_an_input_from_nowhere_is_refused(refusal):
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[N,2] x) => (float[N,2] y) { y = Add (x, nowhere) }'
    assert refusal(onnx.parser.parse_model(text).SerializeToString()).startswith("tensorrt-rtx: ")


def test_the_graph_is_linted_first(refusal, bundles):
    lowered_for_uint8 = ir.load(bundles["onnxruntime"].path / "lowered.onnx")
    assert "its zero point is 128" in refusal(lowered_for_uint8, TargetUnsupported)


def test_a_dynamic_dimension_other_than_the_batch_is_refused(refusal):
    said = refusal(graph("g (float[N,3,H,8] x) => (float[N,3,H,8] y) { y = Relu (x) }"), UsageError)
    assert said.startswith("input x has dynamic dimensions")


def test_a_graph_of_fixed_shapes_needs_no_profile(rtx, tmp_path):
    out = tmp_path / "engine"
    rtx.build(serialize(graph("g (float[2,4] x) => (float[2,4] y) { y = Relu (x) }")), CONFIG, out)
    assert out.stat().st_size > 0


def test_nothing_is_captured_after_a_build_or_a_failure(sdk, refusal, built):
    refusal(b"no graph at all")
    refusal(graph("g (float[N,2] x) => (float[N,2] y) { y = Conv (x, x) }"))
    assert sdk.logger.sinks == []


def fail(sdk) -> None:
    with sdk.captured():
        sdk.logger.log(sdk.trt.ILogger.VERBOSE, "chatter")
        sdk.logger.log(sdk.trt.ILogger.WARNING, "first\n")
        sdk.logger.log(sdk.trt.ILogger.ERROR, "second")
        raise RuntimeError("the\ncause")


def test_an_exception_of_the_sdk_comes_out_as_qzoos_with_the_log(sdk):
    with pytest.raises(TargetError, match=r"^tensorrt-rtx: the cause; its log: first; second$") as raised:
        fail(sdk)
    assert isinstance(raised.value.__cause__, RuntimeError)
