"""What the stages hand on to each other and what a bundle keeps, as frozen dataclasses, and their JSON form.

`encode` writes canonical JSON (sorted keys, shortest floats, UTF-8, one trailing newline), so that the same record
has the same bytes; `decode` reads it back, strictly typed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from qzoo.errors import IntegrityError
from qzoo.provenance import Provenance
from qzoo.spec import Decision, Precision, Preprocess, Recipe, Role

T = TypeVar("T")
Verified = Literal["passed", "planned"]
INT8 = "Int8"
"""A layer's type, as TensorRT writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Runtime + hardware + version: what an engine is built for and must be loaded by.

    `isa` names the instruction sets that decide the kernels ("avx512_vnni+bf16") or the GPU ("sm89"). `vnni` tells
    whether 8-bit products accumulate without saturating; without it weights use 7 bits (range 63).
    """

    runtime: str
    isa: str
    version: str
    vnni: bool = True

    def __str__(self) -> str:
        return f"{self.runtime}/{self.isa}"

    @property
    def weight_max(self) -> int:
        """The largest magnitude an int8 weight may have here."""
        return 127 if self.vnni else 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Whether a backend runs engines on this machine; if not, `reason` says why and what to do.

    `builds`: whether it still builds engines here, for machines that have what this one lacks.
    """

    works: bool
    builds: bool = False
    version: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizerRange:
    """One quantizer's calibrated range: amax (one value, or one per channel of `axis`), in the tensor's own units."""

    role: Role
    amax: tuple[float, ...]
    axis: int | None
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """Every quantizer's amax by module path, and what it was calibrated on."""

    calibrator: str
    samples: int
    sample_list_sha256: str
    ranges: dict[str, QuantizerRange]
    schema: Literal[1] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A sample that could not be read, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """Which float weights were used. `kind` "random" has no trained accuracy and can't be pushed."""

    kind: Literal["shipped", "file", "hub", "random"]
    ref: str
    sha256: str
    num_classes: int
    licence: str | None = None  # its SPDX identifier, where it is known


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """An engine's input or output. `shape` leaves out the batch."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """The sidecar `<engine>.json`: all that is needed to load, feed and read an engine without its plugin."""

    model: str
    precision: Precision
    target: Target
    sha256: str
    size_bytes: int
    config: dict[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    preprocess: Preprocess
    decision: Decision
    labels: tuple[str, ...]
    max_batch: int
    graph_sha256: str | None = None  # of the lowered graph it was built from
    layers_sha256: str | None = None  # of layers.json, where its runtime tells them
    schema: Literal[1] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTensor:
    """A tensor of an engine's layer, in the runtime's words. A dimension of -1 is the batch's."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of an engine: what it reads and writes, and the names of the ONNX nodes that were fused into it."""

    name: str
    kind: str
    inputs: tuple[LayerTensor, ...]
    constants: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOperator:
    """An ONNX node that multiplies by weights, its layer, and the type it multiplies in; None: it isn't told."""

    node: str
    operator: str
    layer: str | None
    dtype: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """layers.json: what a runtime made of a graph, layer by layer."""

    layers: tuple[Layer, ...]
    operators: tuple[PlannedOperator, ...]
    schema: Literal[1] = 1

    def coverage(self, *operators: str) -> tuple[int, int]:
        """How many of these operators' nodes are computed in INT8, and how many there are."""
        found = [one for one in self.operators if one.operator in operators]
        return sum(one.dtype == INT8 for one in found), len(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """The sidecar `<engine>.json` of an engine that `qzoo trtexec` built from any ONNX graph.

    `profiles` are the smallest, the tuned-for and the largest shape of each dynamic input. `graph_sha256` is of the
    graph that was built, after it was converted.
    """

    target: Target
    sha256: str
    size_bytes: int
    graph_sha256: str
    profiles: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    config: dict[str, str]
    layers: LayerTable | None
    schema: Literal[1] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesRecord:
    """What `qzoo export --form ranges` writes beside the graph: each tensor's amax, by the tensor's name in it.

    `ranges` were calibrated, `derived` follow from a neighbour's; `several` has all of a tensor that had more than one,
    of which `ranges` has the largest.
    """

    model: str
    calibrator: str
    ranges: dict[str, float]
    derived: dict[str, float]
    several: dict[str, tuple[float, ...]]
    schema: Literal[1] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """How long one layer took over a number of calls, in milliseconds; `percentage` is of all layers' total."""

    name: str
    calls: int
    total_ms: float
    median_ms: float
    percentage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Wall time of one call, in milliseconds, over `rounds` calls."""

    median_ms: float
    p95_ms: float
    batch: int
    threads: int
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1: `fraction` = correct / total."""

    correct: int
    total: int

    @property
    def fraction(self) -> float:
        return self.correct / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One epoch of training: loss and accuracy over its batches; `validation` after it; its last learning rate."""

    epoch: int
    loss: float
    training: Accuracy
    validation: Accuracy | None
    lr: float
    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How close outputs are to a reference's, on held-out inputs, centred (qzoo.measure.fidelity)."""

    cosine: float
    sqnr_db: float
    top1_agreement: float | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine that `--autotune` looked at, on calibration images that no range was made from.

    `variant` says how it differs from the recipe: "as the recipe says", "depthwise in float", ... `latency_ms` is the
    median of a call at the profile's opt batch; None where the engine failed, for the `reason` given. `key` is what a
    timing cache has it by.
    """

    key: str
    target: str
    precision: Precision
    variant: str
    latency_ms: float | None
    fidelity: Fidelity | None
    accuracy: Accuracy | None
    chosen: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratorTrial:
    """How well one calibrator does on calibration images that it was not made from; `chosen` is the build's own.

    `fidelity` is of the fake-quantized network, before any fine-tuning, to the float one. `accuracy` is the
    fake-quantized network's, None without labels.
    """

    calibrator: str
    chosen: bool
    fidelity: Fidelity
    accuracy: Accuracy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """SQNR in dB of one quantized layer's output, the layer alone quantized, against the float layer's."""

    path: str
    sqnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured on the machine that built. Kept outside the bundle id; None where it can't be measured here."""

    target: Target
    verified: Verified
    size_bytes: dict[Literal["float", "engine"], int | None]
    latency: dict[str, Latency]  # by precision, the engine's own and its runtime's float ones
    accuracy: dict[Literal["float", "engine"], Accuracy] | None
    fidelity: Fidelity | None  # engine against the float model
    export_fidelity: Fidelity | None  # portable graph against the fake-quantized network
    engine_fidelity: Fidelity | None  # engine against its lowered graph
    lowering_cost_db: float | None  # SQNR to the float network: the fake-quantized one's less the lowered graph's
    data: str
    notes: tuple[str, ...] = ()
    calibrators: tuple[CalibratorTrial, ...] = ()  # where they were compared
    candidates: tuple[Candidate, ...] = ()  # with --autotune
    skipped: tuple[Skipped, ...] = ()  # samples that could not be read
    seconds: dict[str, float] = field(default_factory=dict)
    schema: Literal[1] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """All that decides a bundle's bytes. The bundle id is the SHA-256 of its canonical JSON."""

    model: str
    plugin_version: str
    plugin_source_sha256: str
    recipe: Recipe
    weights: WeightsRecord
    sample_list_sha256: str
    held_out_list_sha256: str
    labels: tuple[str, ...]
    target: Target
    versions: dict[str, str]
    seed: int

    @property
    def bundle_id(self) -> str:
        return hashlib.sha256(encode(self)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """manifest.json: what went into a bundle, and the digest of every file but the manifest and the measurement."""

    id: str
    inputs: BuildInputs
    provenance: Provenance
    data: str
    engine: str
    files: dict[str, FileEntry]
    schema: Literal[1] = 1


def encode(record: object) -> bytes:
    """Canonical JSON of a record, list or mapping: sorted keys, indented by two, one trailing newline."""
    import msgspec  # here, as `qzoo list` needs no JSON and shall not wait for it

    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=2) + b"\n"


def decode(data: bytes, kind: type[T], source: str | Path = "JSON") -> T:
    """Read a record back. Raises IntegrityError that names `source` where the text is not such a record."""
    import msgspec

    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise IntegrityError(f"{source} is not a valid {kind.__name__}: {error}; rebuild or fetch it again") from error


def digest_of(data: bytes | Mapping[str, object] | tuple[object, ...] | list[object]) -> str:
    """SHA-256 in hex of bytes, or of a value's canonical JSON."""
    return hashlib.sha256(data if isinstance(data, bytes) else encode(data)).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 in hex of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
