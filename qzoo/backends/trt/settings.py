"""What a builder is told: its config, from words, each taken or refused aloud."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qzoo.backends.trt.sdk import Message, Sdk, made
from qzoo.errors import TargetUnsupported
from qzoo.writing import write_file

LOGGER = logging.getLogger(__name__)

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A build's settings. `gpus`: "sm86", ...; none: this machine's. `verbosity`: a name of ProfilingVerbosity."""

    gpus: tuple[str, ...] = ()
    workspace_mib: float | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    timing_cache: Path | None = None
    verbosity: str = "DETAILED"

    @classmethod
    def of(cls, config: Mapping[str, str]) -> Settings:
        """From a build's config, as the engine's record keeps it."""
        return cls(
            gpus=tuple(filter(None, config.get("compute_capabilities", "").split("+"))),
            workspace_mib=_number(config.get("workspace_mib")),
            optimization_level=_number(config.get("builder_optimization_level")),
            version_compatible=config.get("version_compatible") == "true",
            hardware_compatible=config.get("hardware_compatible") == "true",
            timing_cache=Path(config["timing_cache"]) if "timing_cache" in config else None,
        )

    def told(self) -> dict[str, str]:
        """What the builder was told that is not its default, in the words of an engine's record."""
        values = {
            "workspace_mib": self.workspace_mib,
            "builder_optimization_level": self.optimization_level,
            "version_compatible": self.version_compatible or None,
            "hardware_compatible": self.hardware_compatible or None,
        }
        said = {key: str(value).lower() for key, value in values.items() if value is not None}
        return {"profiling_verbosity": self.verbosity, **said}


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def configure(sdk: Sdk, builder: Any, settings: Settings, log: list[Message]) -> Any:  # noqa: ANN401 - an SDK's object
    """A builder config with every setting taken. Raises TargetError, or TargetUnsupported for what the SDK lacks."""
    config = made(sdk, builder.create_builder_config(), "a builder config", log)
    config.profiling_verbosity = getattr(sdk.trt.ProfilingVerbosity, settings.verbosity)
    if settings.gpus and sdk.ahead_of_time:
        build_for(sdk, config, settings.gpus, log)
    if settings.workspace_mib is not None:
        config.set_memory_pool_limit(sdk.trt.MemoryPoolType.WORKSPACE, int(settings.workspace_mib * MIB))
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
        taken = config.builder_optimization_level  # a level beyond the highest is cut off without a word
        if taken != settings.optimization_level:
            raise sdk.failed(
                f"optimization level {settings.optimization_level} was not taken; it has up to {taken}", log
            )
    _compatible(sdk, config, settings)
    if settings.timing_cache is not None and _has_timing_cache(sdk, settings.timing_cache):
        _read_timing_cache(sdk, config, settings.timing_cache, log)
    return config


def build_for(sdk: Sdk, config: Any, gpus: tuple[str, ...], log: list[Message]) -> None:  # noqa: ANN401
    """Set the GPUs that one engine is for. Raises TargetError for one that isn't taken."""
    config.num_compute_capabilities = len(gpus)
    for place, gpu in enumerate(gpus):
        if gpu not in sdk.architectures():
            raise sdk.failed(f"it doesn't build for {gpu}, but for {', '.join(sdk.architectures())}", log)
        # without a slot it returns False, and the engine would silently be built for another GPU
        if not config.set_compute_capability(getattr(sdk.trt.ComputeCapability, gpu.upper()), place):
            raise sdk.failed(f"compute capability {gpu} was not taken", log)


def _compatible(sdk: Sdk, config: Any, settings: Settings) -> None:  # noqa: ANN401
    if (settings.version_compatible or settings.hardware_compatible) and sdk.ahead_of_time:
        raise TargetUnsupported(f"{sdk.name}: version and hardware compatibility are full TensorRT's; leave them out")
    if settings.version_compatible:
        config.set_flag(sdk.trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = sdk.trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _has_timing_cache(sdk: Sdk, path: Path) -> bool:
    if sdk.ahead_of_time:
        LOGGER.warning("%s makes nothing of a timing cache: %s is neither read nor written", sdk.name, path)
        return False
    return True


def _read_timing_cache(sdk: Sdk, config: Any, path: Path, log: list[Message]) -> None:  # noqa: ANN401
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise sdk.failed(f"the timing cache {path} was not taken; it may be of another version or GPU, remove it", log)


def keep_timing_cache(sdk: Sdk, config: Any, settings: Settings) -> None:  # noqa: ANN401
    """Write what the builder timed to the file that it was read from. Raises StoreError."""
    if settings.timing_cache is None or sdk.ahead_of_time:
        return
    cache = config.get_timing_cache()
    if cache is not None:
        write_file(settings.timing_cache, bytes(memoryview(cache.serialize())))
