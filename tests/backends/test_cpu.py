"""Instruction sets from made-up CPUs."""

from __future__ import annotations

import pytest

from qzoo.backends.cpu import bf16, cpu_flags, fp16, isa, onednn_limit

SSE = {"sse4_1"}
AVX2 = SSE | {"avx2"}
ALDER_LAKE = AVX2 | {"avx_vnni"}
SKYLAKE_X = AVX2 | {"avx512f", "avx512bw", "avx512vl"}
CASCADE_LAKE = SKYLAKE_X | {"avx512_vnni"}
COOPER_LAKE = CASCADE_LAKE | {"avx512_bf16"}
SAPPHIRE_RAPIDS = COOPER_LAKE | {"avx512_fp16", "avx_vnni", "amx_int8", "amx_bf16"}
GRAVITON2 = {"asimd", "asimddp", "asimdhp"}
GRAVITON3 = GRAVITON2 | {"bf16"}
CORTEX_A72 = {"asimd"}


@pytest.mark.parametrize(
    ("flags", "name", "exact"),
    [
        (SSE, "sse4_1", False),
        (AVX2, "avx2", False),
        (ALDER_LAKE, "avx_vnni", True),
        (SKYLAKE_X, "avx512", False),
        (CASCADE_LAKE, "avx512_vnni", True),
        (COOPER_LAKE, "avx512_vnni", True),
        (SAPPHIRE_RAPIDS, "amx_int8", True),
        (GRAVITON2, "neon_dotprod", True),
        (CORTEX_A72, "neon", True),
        ({"avx512_vnni"} | AVX2, "avx2", False),  # the 256-bit forms need avx512vl
    ],
)
def test_the_best_level_of_a_cpu_and_whether_its_products_are_exact(flags, name, exact):
    assert isa(frozenset(flags)) == (name, exact)


@pytest.mark.parametrize(
    ("limit", "name", "exact", "brain", "half"),
    [
        (None, "amx_int8", True, True, True),
        ("AVX512_CORE_AMX_FP16", "amx_int8", True, True, True),
        ("AVX512_CORE_AMX", "amx_int8", True, True, True),
        ("AVX512_CORE_FP16", "avx512_vnni", True, True, True),
        ("AVX512_CORE_BF16", "avx512_vnni", True, True, False),
        ("AVX512_CORE_VNNI", "avx512_vnni", True, False, False),
        ("AVX512_CORE", "avx512", False, False, False),
        ("AVX2_VNNI", "avx_vnni", True, False, False),
        ("AVX2", "avx2", False, False, False),
        ("SSE41", "sse4_1", False, False, False),
    ],
)
def test_onednns_limit_holds_a_cpu_below_what_it_can(limit, name, exact, brain, half):
    flags = frozenset(SAPPHIRE_RAPIDS)
    assert isa(flags, limit) == (name, exact)
    assert (bf16(flags, limit), fp16(flags, limit)) == (brain, half)


@pytest.mark.parametrize(
    ("flags", "brain", "half"),
    [
        (AVX2, False, False),
        (CASCADE_LAKE, False, False),
        (COOPER_LAKE, True, False),
        (GRAVITON2, False, True),
        (GRAVITON3, True, True),
    ],
)
def test_which_cpus_have_16_bit_arithmetic(flags, brain, half):
    assert (bf16(frozenset(flags)), fp16(frozenset(flags))) == (brain, half)


def test_a_cpu_without_known_flags_is_named_by_its_architecture(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert isa(frozenset()) == ("riscv64", False)
    monkeypatch.setattr("platform.machine", lambda: "")
    assert isa(frozenset({"fpu"})) == ("unknown", False)


@pytest.mark.parametrize(
    ("env", "limit"),
    [
        ({}, None),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core_vnni"}, "AVX512_CORE_VNNI"),
        ({"DNNL_MAX_CPU_ISA": "AVX2"}, "AVX2"),
        ({"ONEDNN_MAX_CPU_ISA": "SSE41", "DNNL_MAX_CPU_ISA": "AVX2"}, "SSE41"),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, None),
        ({"ONEDNN_MAX_CPU_ISA": "no such thing"}, None),
    ],
)
def test_the_limit_is_read_from_the_environment_as_onednn_does(env, limit):
    assert onednn_limit(env) == limit


@pytest.mark.parametrize("key", ["flags", "Features"])
def test_flags_are_those_of_the_first_core(tmp_path, key):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        f"processor\t: 0\nmodel name\t: a: b\n{key}\t\t: fpu avx2 sse4_1\n\nprocessor\t: 1\n{key}\t: fpu\n"
    )
    assert cpu_flags(cpuinfo) == {"fpu", "avx2", "sse4_1"}


def test_a_system_without_cpuinfo_has_no_flags(tmp_path):
    assert cpu_flags(tmp_path / "missing") == frozenset()


def test_cpuinfo_without_flags_or_with_odd_bytes_is_read_all_the_same(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_bytes(b"processor : 0\nvendor : \xff\xfe\n")
    assert cpu_flags(cpuinfo) == frozenset()
