"""Small bundles that need no network."""

from __future__ import annotations

from typing import Literal

from qzoo.records import (
    BuildInputs,
    EngineRecord,
    FileEntry,
    Manifest,
    Measurement,
    Provenance,
    Target,
    TensorInfo,
    WeightsRecord,
    digest_of,
    encode,
)
from qzoo.spec import Precision, Preprocess, Recipe

RUNTIMES = {"openvino": "avx512_vnni+bf16", "onnxruntime": "avx512_vnni"}
PREPROCESS = Preprocess(resize=8, crop=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def make_bundle(
    model: str = "net",
    runtime: str = "openvino",
    seed: int = 0,
    *,
    weights: Literal["random", "file"] = "random",
    version: str = "1.0",
    precision: Precision = "int8",
    engine_bytes: bytes | None = None,
) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest and its files; the engine's bytes, unless given, depend on the first three."""
    target = Target(runtime=runtime, isa=RUNTIMES[runtime], version=version)
    engine = engine_bytes or f"engine of {model} for {target}, seed {seed}".encode() * 100
    record = EngineRecord(
        model=model,
        precision="int8",
        target=target,
        sha256=digest_of(engine),
        size_bytes=len(engine),
        config={},
        inputs=(TensorInfo(name="input", shape=(3, 8, 8), dtype="float32"),),
        outputs=(TensorInfo(name="logits", shape=(2,), dtype="float32"),),
        preprocess=PREPROCESS,
        decision="argmax",
        labels=("a", "b"),
        max_batch=4,
    )
    files = {"engine.blob": engine, "engine.blob.json": encode(record), "portable.onnx": b"the same for every target"}
    inputs = BuildInputs(
        model=model,
        plugin_version="1",
        plugin_source_sha256="0" * 64,
        recipe=Recipe(target=runtime, precision=precision),
        weights=WeightsRecord(kind=weights, ref="seed", sha256="1" * 64, num_classes=2),
        sample_list_sha256="2" * 64,
        held_out_list_sha256="3" * 64,
        labels=("a", "b"),
        target=target,
        versions={},
        seed=seed,
    )
    manifest = Manifest(
        id=inputs.bundle_id,
        inputs=inputs,
        provenance=Provenance(plugin="p", module="p", origin="p.py"),
        data="digits",
        engine="engine.blob",
        files={name: FileEntry(sha256=digest_of(data), size_bytes=len(data)) for name, data in files.items()},
    )
    measured = Measurement(
        target=target,
        verified="passed",
        size_bytes={"float": 10, "engine": 5},
        latency={},
        accuracy=None,
        fidelity=None,
        export_fidelity=None,
        engine_fidelity=None,
        lowering_cost_db=None,
        data="digits",
    )
    return manifest, {**files, "measurement.json": encode(measured)}
