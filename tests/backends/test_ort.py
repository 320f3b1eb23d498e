"""What is onnxruntime's own, beside the contract."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as state

from qzoo.backends.ort import OnnxRuntime, _mapped_errors
from qzoo.errors import IntegrityError, TargetError, TargetUnavailable, TargetUnsupported

SDK_ERRORS = sorted(
    (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    key=lambda kind: kind.__name__,
)
UNREADABLE = {"InvalidGraph", "InvalidProtobuf", "NoModel"}


def test_every_layer_of_lowered_resnet20_runs_on_an_int8_kernel(bundles, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # the file is hardware-specific, it warns
    onnxruntime.InferenceSession(bundles["onnxruntime"].path / "lowered.onnx", options)
    found = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert {kind: found.count(kind) for kind in found if "Q" in kind} == {
        "QuantizeLinear": 1,  # of the input
        "QLinearConv": 21,
        "QLinearAdd": 9,
        "QLinearGlobalAveragePool": 1,
        "QGemm": 1,  # it gives the float logits itself
    }
    assert {kind for kind in found if "Q" not in kind} == {"Transpose", "Reshape"}


def test_the_engine_is_the_lowered_graph_itself(bundles):
    bundle = bundles["onnxruntime"]
    assert bundle.engine.read_bytes() == (bundle.path / "lowered.onnx").read_bytes()


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8+fp16"])
def test_no_16_bit_arithmetic_is_offered(precision):
    words = (
        rf"^target onnxruntime: its CPU kernels don't compute in {precision.replace('+', '.')}; use --precision fp32"
    )
    with pytest.raises(TargetUnsupported, match=words):
        OnnxRuntime().check_precision(precision)


def test_threads_are_those_of_one_operator():
    assert OnnxRuntime().config("int8") == {}
    assert OnnxRuntime().config("int8", 3) == {"intra_op_num_threads": "3"}


def test_onednns_limit_is_not_onnxruntimes(monkeypatch):
    here = OnnxRuntime().target()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert OnnxRuntime().target() == here


@pytest.mark.parametrize("kind", SDK_ERRORS, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_sdk_comes_out_as_qzoos(kind):
    expected = IntegrityError if kind.__name__ in UNREADABLE else TargetError
    with pytest.raises(expected, match=r"onnxruntime.*the cause") as error, _mapped_errors(unreadable=IntegrityError):
        raise kind("the cause")
    assert isinstance(error.value.__cause__, kind)
    with pytest.raises(TargetError, match="the cause"), _mapped_errors():
        raise kind("the cause")


class Missing(OnnxRuntime):
    sdk = "qzoo-runtime-that-nobody-wrote"


def test_a_runtime_that_is_not_installed_says_what_to_install():
    probe = Missing().probe()
    assert not probe.works
    assert probe.reason == f"{Missing.sdk} is not installed; pip install {Missing.sdk}"
    with pytest.raises(TargetUnavailable, match=f"^target onnxruntime: {Missing.sdk} is not installed") as error:
        Missing().target()
    assert error.value.exit_code == 4
