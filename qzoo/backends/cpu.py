"""What the CPU can do, in the names that oneDNN and Linux use."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

_X86_LEVELS = (
    # name, the /proc/cpuinfo flags that all must be there, oneDNN's name (ONEDNN_MAX_CPU_ISA), 8-bit dot products
    ("amx_int8", {"amx_int8", "avx512_vnni"}, "AVX512_CORE_AMX", True),
    ("avx512_vnni", {"avx512_vnni", "avx512bw", "avx512vl"}, "AVX512_CORE_VNNI", True),
    ("avx512", {"avx512f", "avx512bw", "avx512vl"}, "AVX512_CORE", False),
    ("avx_vnni", {"avx_vnni", "avx2"}, "AVX2_VNNI", True),
    ("avx2", {"avx2"}, "AVX2", False),
    ("sse4_1", {"sse4_1"}, "SSE41", False),
)
_ONEDNN_ORDER = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
    "AVX512_CORE_AMX",
    "AVX512_CORE_AMX_FP16",
)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction-set flags of the first core; empty where the system doesn't tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def isa(flags: frozenset[str], onednn_limit: str | None = None) -> tuple[str, bool]:
    """The name of the best level these flags reach, and whether its 8-bit products accumulate without saturating.

    `onednn_limit` is the value of ONEDNN_MAX_CPU_ISA, for runtimes that obey it (oneDNN's developer guide, "CPU
    dispatcher control").
    """
    if "asimd" in flags:
        return ("neon_dotprod" if "asimddp" in flags else "neon"), True
    for name, needed, onednn, vnni in _X86_LEVELS:
        if needed <= flags and _within(onednn, onednn_limit):
            return name, vnni
    return platform.machine() or "unknown", False


def bf16(flags: frozenset[str], onednn_limit: str | None = None) -> bool:
    """Whether bfloat16 has instructions of its own."""
    return bool({"avx512_bf16", "bf16"} & flags) and _within("AVX512_CORE_BF16", onednn_limit)


def fp16(flags: frozenset[str], onednn_limit: str | None = None) -> bool:
    """Whether float16 arithmetic has instructions of its own."""
    return bool({"avx512_fp16", "asimdhp"} & flags) and _within("AVX512_CORE_FP16", onednn_limit)


def onednn_limit(env: Mapping[str, str]) -> str | None:
    """The instruction-set limit that the environment sets for oneDNN, if any."""
    value = env.get("ONEDNN_MAX_CPU_ISA", env.get("DNNL_MAX_CPU_ISA", "")).upper()
    return value if value in _ONEDNN_ORDER else None


def _within(level: str, limit: str | None) -> bool:
    return limit is None or _ONEDNN_ORDER.index(level) <= _ONEDNN_ORDER.index(limit)


def cpu_name() -> str:
    """The CPU's model, as Linux tells it; elsewhere what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
