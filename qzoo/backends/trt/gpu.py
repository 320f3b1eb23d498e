"""What the CUDA driver says of this machine, through cuda-bindings, which import without one."""

from __future__ import annotations

from typing import Any

from qzoo.errors import TargetUnavailable


def why_no_gpu() -> str:
    """Why no CUDA GPU can be used here; empty where one can."""
    try:
        runtime = cuda_runtime()
    except ImportError:
        return "cuda-bindings is not installed; pip install cuda-bindings"
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess:
        return f"no CUDA GPU can be used here ({status.name})"
    return "" if count else "no CUDA GPU is here"


def architecture() -> str:
    """The first GPU's compute capability, as "sm89". Raises TargetUnavailable where there is none."""
    lacking = why_no_gpu()
    if lacking:
        raise TargetUnavailable(lacking)
    runtime = cuda_runtime()
    digits = ""
    for part in ("Major", "Minor"):
        attribute = getattr(runtime.cudaDeviceAttr, f"cudaDevAttrComputeCapability{part}")
        status, value = runtime.cudaDeviceGetAttribute(attribute, 0)
        if status != runtime.cudaError_t.cudaSuccess:
            raise TargetUnavailable(f"the CUDA driver doesn't tell the GPU's compute capability ({status.name})")
        digits += str(value)
    return f"sm{digits}"


def cuda_runtime() -> Any:  # noqa: ANN401 - cuda-bindings has no types
    """CUDA's runtime, through cuda-bindings. Raises ImportError."""
    from cuda.bindings import runtime

    return runtime
