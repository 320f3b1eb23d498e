"""What is OpenVINO's own, beside the contract."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from io import BytesIO

import openvino
import pytest

from qzoo.backends import cpu
from qzoo.backends.ov import OpenVINO
from qzoo.errors import TargetError, TargetUnsupported, UsageError
from qzoo.pipeline.assemble import engine_config
from qzoo.spec import Recipe

HAS_BF16 = cpu.bf16(cpu.cpu_flags(), cpu.onednn_limit(os.environ))
needs_vnni = pytest.mark.skipif(
    "avx512_vnni" not in cpu.cpu_flags(), reason="this CPU has no AVX-512 VNNI to go without"
)
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16 instructions")


@pytest.fixture
def lowered(bundles):
    return (bundles["openvino"].path / "lowered.onnx").read_bytes()


def kernels(compiled: openvino.CompiledModel) -> list[tuple[str, str]]:
    """Each layer's type and the precision that it runs in."""
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    return [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in infos]


def test_every_convolution_of_lowered_resnet20_runs_in_8_bits(lowered):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(lowered), "CPU", OpenVINO().config("int8"))
    weighted = [found for found in kernels(compiled) if found[0] in ("Convolution", "FullyConnected")]
    assert len(weighted) == 22
    assert {precision for _, precision in weighted} <= {"u8", "i8"}


def test_the_adds_are_fused_into_the_convolutions(lowered):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(lowered), "CPU", OpenVINO().config("int8"))
    assert not [kind for kind, _ in kernels(compiled) if kind == "Eltwise"]


@needs_bf16
def test_without_its_hint_an_imported_float_engine_would_run_in_bf16(lowered, tmp_path):
    # the trap that the config in an engine's record is there for
    config, out = OpenVINO().config("fp32"), tmp_path / "engine.blob"
    OpenVINO().build(lowered, config, out)
    with_hint, without = (
        openvino.Core().import_model(BytesIO(out.read_bytes()), "CPU", hints).get_property("INFERENCE_PRECISION_HINT")
        for hints in (config, {})
    )
    assert (with_hint, without) == (openvino.Type.f32, openvino.Type.bf16)


@pytest.mark.parametrize(
    ("limit", "hints"),
    [
        ("AVX2", {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16", "int8+fp16": "f16"}),
        pytest.param("AVX512_CORE_AMX", {"fp32": "f32", "int8": "bf16", "bf16": "bf16"}, marks=needs_bf16),
    ],
)
def test_the_precision_hint_follows_the_precision_and_the_cpu(monkeypatch, limit, hints):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    found = {precision: OpenVINO().config(precision)["INFERENCE_PRECISION_HINT"] for precision in hints}
    assert found == hints


@needs_bf16
@pytest.mark.parametrize(("parts", "found"), [("auto", {"bf16"}), ("fp32", {"f32"})])
def test_a_recipe_says_what_an_int8_engine_computes_in_that_is_not_quantized(mfcnn_bundles, parts, found):
    recipe = Recipe(target="openvino", precision="int8", float_parts=parts)
    config = engine_config(OpenVINO(), OpenVINO().target(), recipe)
    core = openvino.Core()
    lowered = core.read_model(mfcnn_bundles["openvino"].path / "lowered.onnx")
    compiled = core.compile_model(lowered, "CPU", config)
    assert {precision for kind, precision in kernels(compiled) if kind == "Convolution" and "f" in precision} == found


def test_a_recipe_of_float_parts_in_another_precision_is_refused():
    with pytest.raises(UsageError, match="'bf16' is not one of auto, fp32"):
        Recipe(target="openvino", precision="int8", float_parts="bf16")


@pytest.mark.parametrize("precision", ["fp32", "int8+fp16"])
def test_float_parts_of_a_precision_that_says_them_itself_are_refused(precision):
    with pytest.raises(UsageError, match=f"float_parts 'fp32' is of precision int8, not of {re.escape(precision)}"):
        Recipe(target="openvino", precision=precision, float_parts="fp32")


def test_threads_are_passed_on():
    assert OpenVINO().config("fp32", 3)["INFERENCE_NUM_THREADS"] == "3"
    assert "INFERENCE_NUM_THREADS" not in OpenVINO().config("fp32")


@pytest.mark.parametrize(("precision", "lacking"), [("bf16", "bf16"), ("fp16", "fp16"), ("int8+fp16", "fp16")])
def test_a_cpu_without_16_bit_arithmetic_refuses_it(monkeypatch, precision, lacking):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    words = rf"^target openvino/\w+: this CPU has no {lacking} arithmetic; use --precision fp32 or int8$"
    with pytest.raises(TargetUnsupported, match=words):
        OpenVINO().check_precision(precision)


@needs_bf16
def test_a_cpu_with_bf16_and_no_fp16_says_that_int8s_float_parts_run_in_bf16(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    OpenVINO().check_precision("bf16")
    with pytest.raises(TargetUnsupported, match="no fp16 arithmetic; use --precision int8, whose float parts run in"):
        OpenVINO().check_precision("int8+fp16")


ELSEWHERE = """
import json, sys
from pathlib import Path
from qzoo.backends.ov import OpenVINO
from qzoo.errors import EngineMismatch
from qzoo.store.bundle import read_record
backend, engine = OpenVINO(), Path(sys.argv[1])
target = backend.target()
try:
    backend.load(engine, read_record(engine))
except EngineMismatch as error:
    print(json.dumps({"target": str(target), "weight_max": target.weight_max, "code": error.exit_code,
                      "message": str(error)}))
"""


@needs_vnni
def test_under_a_lower_limit_the_target_is_another_and_the_engine_is_refused(bundles):
    built = bundles["openvino"]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, built.engine],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert (found["target"], found["weight_max"], found["code"]) == ("openvino/avx2", 63, 4)
    assert "openvino/avx2 with openvino" in found["message"]
    assert f"{built.record.target} with openvino" in found["message"]


IMPORT = """
import sys
from io import BytesIO
from pathlib import Path
from openvino import Core
Core().import_model(BytesIO(Path(sys.argv[1]).read_bytes()), "CPU", {})
"""


@needs_vnni
def test_openvino_obeys_the_limit_that_the_target_is_named_by(bundles):
    # its blobs name the instruction set they were made for, and it refuses others itself
    command = [sys.executable, "-c", IMPORT, bundles["openvino"].engine]
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode != 0
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_setting_that_openvino_does_not_know_is_named(lowered, tmp_path):
    with pytest.raises(TargetError, match=r"^openvino: .*NO_SUCH_SETTING") as error:
        OpenVINO().build(lowered, {"NO_SUCH_SETTING": "1"}, tmp_path / "engine.blob")
    assert "Exception from" not in str(error.value)
    assert error.value.exit_code == 4


def test_a_compiler_that_ends_without_a_word_is_a_target_error(lowered, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TargetError, match=r"^openvino: compiling ended with status 1$"):
        OpenVINO().build(lowered, {}, tmp_path / "engine.blob")
    assert not (tmp_path / "engine.blob").exists()
