"""Float weights: where they come from, what is in them, and how they get into a network.

`plan` decides and records without loading torch where it can, so that finding an engine that was already built stays
cheap; sources.py finds or fetches a file (timm_hub.py one of timm's), checkpoint.py reads it, network.py loads it into
a network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qzoo.errors import WeightsUnavailable
from qzoo.records import WeightsRecord, decode, digest_of, encode, file_digest
from qzoo.spec import ModelSpec, Placement, WeightSource
from qzoo.weights import timm_hub
from qzoo.weights.checkpoint import (
    HEADER,
    RANGE,
    first_axis,
    is_safetensors,
    load_state,
    num_classes,
    safetensors_shapes,
    split_ranges,
    strip_prefixes,
)
from qzoo.weights.network import apply, initialize_random
from qzoo.weights.sources import Progress, address, at_hand, download, licence_of, shipped_dir, ways_out_of
from qzoo.writing import write_file

__all__ = [
    "HEADER",
    "RANGE",
    "TrainedBy",
    "WeightsPlan",
    "apply",
    "download",
    "initialize_random",
    "load_state",
    "num_classes",
    "plan",
    "shipped_dir",
    "split_ranges",
    "trained_by",
]

FileKind = Literal["shipped", "file", "hub"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPlan:
    """The weights that a build will use. `path` is the checkpoint, None for random weights drawn from `seed`."""

    record: WeightsRecord
    path: Path | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedBy:
    """What a checkpoint of `qzoo train` says of itself: how its network was quantized, if it was.

    `ranges` tells whether it holds the quantizers' ranges; `placement` None is the recipe's own.
    """

    ranges: bool = False
    weight_bits: int = 8
    placement: Placement | None = None


def plan(spec: ModelSpec, option: str, seed: int, cache: Path, progress: Progress | None = None) -> WeightsPlan:
    """Decide which weights `--weights OPTION` means: "auto", "random", or the path of a checkpoint.

    "auto" takes the first of the spec's sources that is at hand, shipped or in `cache`, and only then downloads one
    into `cache`. Loads no torch for a .safetensors, nor for a checkpoint whose class count `cache` remembers. Raises
    WeightsUnavailable, WeightsMismatch for a file that isn't a checkpoint of such a network, IntegrityError for one
    that was changed.
    """
    if option == "random":
        record = WeightsRecord(
            kind="random", ref=f"seed {seed}", sha256=digest_of({"random": seed}), num_classes=spec.num_classes
        )
        return WeightsPlan(record=record, path=None, seed=seed)
    if option != "auto":
        path = Path(option).expanduser()
        if not path.is_file():
            raise WeightsUnavailable(f"weights: there is no file {option}; {ways_out_of(spec)}")
        return _planned("file", path.name, path, spec=spec, seed=seed, cache=cache)
    for source in spec.weights:
        found = timm_hub.kept(source.ref, cache) if source.kind == "timm" else at_hand(source, cache)
        if found:
            chosen = _planned(_kind(source), source.ref, found, spec=spec, seed=seed, cache=cache)
            return replace(chosen, record=replace(chosen.record, licence=licence_of(source)))
    for source in spec.weights:
        if source.kind != "shipped":
            path = _fetched(source, cache, progress, ways_out_of(spec))
            return _planned("hub", source.ref, path, spec=spec, seed=seed, cache=cache)
    raise WeightsUnavailable(f"weights: none of {spec.name} are at hand; {ways_out_of(spec)}")


def _fetched(source: WeightSource, cache: Path, progress: Progress | None, ways_out: str) -> Path:
    if source.kind == "timm":
        return timm_hub.fetch(source.ref, cache, ways_out)
    return download(*address(source), cache, progress, ways_out)


def trained_by(plan: WeightsPlan) -> TrainedBy:
    """Read it from a .safetensors file's header; other weights were trained without quantizers. Loads no torch."""
    from safetensors import safe_open

    if plan.path is None or not is_safetensors(plan.path):
        return TrainedBy()
    with safe_open(plan.path, framework="numpy") as file:
        header = decode((file.metadata() or {}).get(HEADER, "{}").encode(), dict[str, Any], plan.path)
        ranges = any(name.endswith(RANGE) for name in file.keys())  # noqa: SIM118 - no dict
    if not ranges:
        return TrainedBy()
    return TrainedBy(ranges=True, weight_bits=header.get("weight_bits", 8), placement=header.get("placement"))


def _kind(source: WeightSource) -> FileKind:
    return "shipped" if source.kind == "shipped" else "hub"


def _planned(kind: FileKind, ref: str, path: Path, *, spec: ModelSpec, seed: int, cache: Path) -> WeightsPlan:
    sha256 = file_digest(path)
    count = _count_classes(path, sha256, spec.head, cache)
    return WeightsPlan(record=WeightsRecord(kind=kind, ref=ref, sha256=sha256, num_classes=count), path=path, seed=seed)


def _count_classes(path: Path, sha256: str, head: str, cache: Path) -> int:
    if is_safetensors(path):
        return first_axis(strip_prefixes(safetensors_shapes(path), head), head)
    memo = cache / "class-counts" / f"{sha256}.json"
    known = decode(memo.read_bytes(), dict[str, int], memo) if memo.is_file() else {}
    if head not in known:
        known[head] = num_classes(load_state(path, head), head)
        write_file(memo, encode(known))
    return known[head]
