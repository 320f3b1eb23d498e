"""The two targets: where they work, what they are built for, and their lowering."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx_text import graph

from qzoo.backends.trt import backend as backend_module
from qzoo.backends.trt.backend import TensorRT, TensorRTRTX
from qzoo.backends.trt.gpu import architecture, why_no_gpu
from qzoo.backends.trt.lower import float_transposed_convolutions
from qzoo.backends.trt.sdk import load_sdk
from qzoo.errors import EngineMismatch, TargetUnavailable, TargetUnsupported, UnknownName
from qzoo.graph.lower import run_passes
from qzoo.measure import sqnr_db
from qzoo.pipeline.assemble import run_reference, serialize
from qzoo.pipeline.plan import choose_backend
from qzoo.spec import BatchProfile, BuilderSettings, Recipe

no_gpu = pytest.mark.skipif(not why_no_gpu(), reason="there is a CUDA GPU here")


@no_gpu
def test_without_a_gpu_rtx_builds_and_does_not_run(rtx):
    probe = rtx.probe()
    assert (probe.works, probe.builds) == (False, True)
    assert "cudaError" in probe.reason


@no_gpu
def test_without_a_gpu_there_is_no_architecture():
    with pytest.raises(TargetUnavailable, match="no CUDA GPU can be used here"):
        architecture()


@no_gpu
def test_without_a_gpu_this_machine_is_no_target_and_the_way_out_is_named(rtx):
    with pytest.raises(TargetUnavailable, match=r"cudaError.*--gpu sm86,sm89,sm120") as raised:
        rtx.target()
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("here", "works", "reason"),
    [("sm89", True, ""), ("sm90", False, "it doesn't run on this GPU, sm90, but on sm75, sm80, ")],
)
def test_rtx_works_on_the_gpus_that_it_lists(rtx, monkeypatch, here, works, reason):
    monkeypatch.setattr(backend_module, "why_no_gpu", lambda: "")
    monkeypatch.setattr(backend_module, "architecture", lambda: here)
    probe = rtx.probe()
    assert (probe.works, probe.builds) == (works, True)
    assert probe.reason.startswith(reason)
    assert rtx.runs(rtx.target_for("sm86+sm89")) is works
    assert not rtx.runs(rtx.target_for("sm86"))


def test_an_engine_for_other_gpus_or_another_version_is_refused_by_both_names(rtx, built, monkeypatch):
    monkeypatch.setattr(backend_module, "why_no_gpu", lambda: "")
    monkeypatch.setattr(backend_module, "architecture", lambda: "sm80")
    with pytest.raises(
        EngineMismatch, match=r"was built for tensorrt-rtx/sm86\+sm89\+sm120 with .*; here is sm80 with"
    ):
        rtx.load(built.path, built.record)
    monkeypatch.setattr(backend_module, "architecture", lambda: "sm89")
    older = replace(built.record, target=replace(built.record.target, version="1.0"))
    with pytest.raises(EngineMismatch, match="rebuild it from its portable graph with --build"):
        rtx.load(built.path, older)


def test_auto_passes_over_what_cannot_run_here(registry):
    backend, reason = choose_backend("auto", registry)
    assert backend.name == "openvino"
    assert "tensorrt: " in reason
    assert "tensorrt-rtx: " in reason


def test_several_gpus_are_one_target_in_one_order(rtx):
    assert str(rtx.target_for("sm120,sm86")) == str(rtx.target_for("sm86+sm120")) == "tensorrt-rtx/sm86+sm120"
    assert not rtx.runs(rtx.target_for("sm86"))


@pytest.mark.parametrize("asked", ["sm90", "sm86+sm9", "ampere", "SM86", ""])
def test_an_unknown_gpu_is_refused_with_all_that_there_are(rtx, asked):
    with pytest.raises(UnknownName, match=r"unknown GPU architecture.*tensorrt-rtx builds for sm75, sm80, .*sm121"):
        rtx.target_for(asked)


@pytest.mark.parametrize("backend", [TensorRT(), TensorRTRTX()], ids=lambda backend: backend.name)
def test_bf16_is_refused_with_a_way_out(backend):
    with pytest.raises(TargetUnsupported, match=rf"^target {backend.name}: .*use --precision fp16"):
        backend.check_precision("bf16")
    for precision in ("fp32", "fp16", "int8", "int8+fp16"):
        backend.check_precision(precision)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_full_tensorrt_says_what_to_install_where_it_is_not():
    with pytest.raises(TargetUnavailable, match=r"tensorrt can't be imported.*pip install 'qzoo\[tensorrt\]'"):
        load_sdk("tensorrt", "tensorrt")
    assert "tensorrt is not installed" in TensorRT().probe().reason
    with pytest.raises(TargetUnavailable, match="tensorrt is not installed; pip install tensorrt"):
        TensorRT().target()


def test_loading_an_engine_says_what_is_missing_to_run_it(rtx, built):
    with pytest.raises(
        TargetUnavailable, match=r"engine\.plan is for tensorrt-rtx/sm86\+sm89\+sm120 and can't run here"
    ):
        rtx.load(built.path, built.record)


def test_config_has_what_a_build_depends_on(rtx):
    recipe = Recipe(target=rtx.name, precision="int8", batch=BatchProfile(min=1, opt=2, max=3))
    target = rtx.target_for("sm89")
    plain = {"compute_capabilities": "sm89", "batch": "1:2:3", "profiling_verbosity": "DETAILED"}
    assert rtx.fixed(target, recipe) == plain
    builder = BuilderSettings(workspace_mib=100, optimization_level=0, version_compatible=True)
    assert rtx.fixed(target, replace(recipe, builder=builder)) == {
        **plain,
        "workspace_mib": "100",
        "builder_optimization_level": "0",
        "version_compatible": "true",
    }


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        (BuilderSettings(version_compatible=True), "--version-compatible needs the lean runtime"),
        (BuilderSettings(hardware_compatible=True), "--hardware-compatible is full TensorRT's; name every GPU"),
    ],
)
def test_what_only_full_tensorrt_has_is_refused_on_rtx_with_the_reason(rtx, builder, says):
    TensorRT().check_builder(builder)
    with pytest.raises(TargetUnsupported, match=says):
        rtx.check_builder(builder)


def test_runtimes_without_a_builder_refuse_its_settings(registry):
    registry.backend("openvino").check_builder(BuilderSettings())
    with pytest.raises(TargetUnsupported, match="target openvino: it has no builder settings"):
        registry.backend("openvino").check_builder(BuilderSettings(workspace_mib=100))


MAKE = """
import sys
from qzoo.registry import Registry
registry = Registry.load(env={})
for name in ("tensorrt", "tensorrt-rtx"):
    backend = registry.backend(name)
    backend.probe(), backend.config("int8"), backend.check_precision("int8")
print([name for name in ("tensorrt", "tensorrt_rtx", "onnx", "onnx_ir", "numpy", "torch") if name in sys.modules])
"""


def test_making_and_probing_them_imports_no_sdk():
    done = subprocess.run([sys.executable, "-c", MAKE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- lowering


def test_lowering_keeps_int8_with_zero_point_0_float_biases_and_active_roles(rtx, portable):
    lowered = rtx.lower(
        portable, Recipe(target=rtx.name, precision="int8", roles=rtx.roles), rtx.target_for("sm89")
    ).graph
    quantizes = [node for node in lowered if node.op_type == "QuantizeLinear"]
    zeros = [node.inputs[2].const_value.numpy() for node in quantizes]
    assert {(zero.dtype, int(zero)) for zero in zeros} == {(np.dtype(np.int8), 0)}
    roles = {role for node in quantizes for role in node.metadata_props["qzoo.role"].split(",")}
    assert {"input", "skip"} <= roles
    biases = [node.inputs[2] for node in lowered if node.op_type in ("Conv", "Gemm")]
    assert {bias.const_value.dtype for bias in biases} == {ir.DataType.FLOAT}


def test_lowering_for_fp32_leaves_no_quantizer(rtx, bundles):
    float_graph = graph("g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }")
    lowered = rtx.lower(float_graph, Recipe(target=rtx.name, precision="fp32"), rtx.target_for("sm89"))
    assert [node.op_type for node in lowered.graph] == ["Relu"]


def test_lowering_for_int8_and_fp16_keeps_the_int8_weights_and_gives_the_rest_16_bits(rtx, portable):
    target = rtx.target_for("sm89")
    int8, both = (
        rtx.lower(portable, Recipe(target=rtx.name, precision=precision, roles=rtx.roles), target).graph
        for precision in ("int8", "int8+fp16")
    )
    stored = [
        {
            name: value.const_value.numpy().tobytes()
            for name, value in g.initializers.items()
            if value.dtype.name == "INT8"
        }
        for g in (int8, both)
    ]
    assert stored[0] == stored[1]
    biases = [node.inputs[2] for node in both if node.op_type in ("Conv", "Gemm")]
    assert {bias.const_value.dtype for bias in biases} == {ir.DataType.FLOAT16}
    assert {value.dtype for value in (*both.inputs, *both.outputs)} == {ir.DataType.FLOAT}


def test_lowering_for_int8_and_fp16_costs_fp16s_rounding_and_no_more(rtx, portable):
    recipe = Recipe(target=rtx.name, precision="int8+fp16", roles=rtx.roles)
    images = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    logits = [
        run_reference(
            serialize(rtx.lower(portable, replace(recipe, precision=precision), rtx.target_for("sm89"))), images
        )
        for precision in ("int8", "int8+fp16")
    ]
    assert sqnr_db(*(outputs["logits"] for outputs in logits)) > 20


TRANSPOSED = """g (float[2,8,4,4] x) => (float[2,16,6,6] y, float[2,8,4,4] other) {
    q = QuantizeLinear (x, s, z)
    d = DequantizeLinear (q, s, z)
    f = DequantizeLinear <axis=1> (w, ws)
    y = ConvTranspose (d, f)
    other = Relu (d)
}"""


def run(model: ir.Model, images: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(serialize(model)).run(None, {"x": images})


def test_a_transposed_convolution_stays_in_float_with_the_quantized_weights_and_is_named(caplog):
    random = np.random.default_rng(0)
    stored = random.integers(-127, 128, (8, 16, 3, 3)).astype(np.int8)
    scale = random.uniform(0.001, 0.01, 16).astype(np.float32)
    model = graph(TRANSPOSED, s=np.float32(0.1), z=np.int8(0), w=stored, ws=scale)
    lowered = run_passes(model, [float_transposed_convolutions])
    assert "make_y stays in float" in caplog.text
    assert [node.op_type for node in lowered.graph].count("DequantizeLinear") == 1  # Relu still reads the quantized x
    on_grid = (np.float32(0.1) * random.integers(-127, 128, (2, 8, 4, 4))).astype(np.float32)
    for found, expected in zip(run(lowered, on_grid), run(model, on_grid), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_lowered_transposed_convolution_builds(rtx, tmp_path):
    model = graph(
        TRANSPOSED, s=np.float32(0.1), z=np.int8(0), w=np.ones((8, 16, 3, 3), np.int8), ws=np.full(16, 0.01, np.float32)
    )
    lowered = rtx.lower(model, Recipe(target=rtx.name, precision="int8"), rtx.target_for("sm89"))
    table = rtx.build(serialize(lowered), {"compute_capabilities": "sm89", "batch": "2:2:2"}, tmp_path / "engine")
    assert table.coverage("ConvTranspose") == (0, 1)
