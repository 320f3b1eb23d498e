"""qzoo's engines against the peers: same float weights, same calibration images, same threads, one run.

    python benchmarks/peers.py --models resnet18 resnet50 --batch 1 4

For every model and batch: onnxruntime fp32, onnxruntime quantize_static (QDQ, U8S8, per channel), openvino f32 and
bf16, NNCF quantize, and qzoo on both runtimes. A ratio is the median of ours/peer's over PROCESSES processes of
ROUNDS rounds, each round running every engine once in a random order, with a bootstrap 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from candidates import Candidate, candidates
from machine import machine
from timing import time_in_processes

from qzoo.measure import latency_ratio

PROCESSES, ROUNDS = 5, 30
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "nncf", "onnx", "pytorch-quantization")
FAMILY = {"onnxruntime": "ort quantize_static", "openvino": "ov nncf"}
"""The INT8 peer on the same runtime."""

FP32 = {"onnxruntime": "ort fp32", "openvino": "ov f32"}
PEER_NAMES = {"ort quantize_static": "onnxruntime `quantize_static`", "ov nncf": "NNCF `quantize`"}


@dataclass(frozen=True)
class Row:
    """One engine's figures. `ratio_to_*` are medians of ours/theirs with their 95 % intervals; peers have none."""

    model: str
    batch: int
    engine: str
    latency_ms: float
    sqnr_db: float
    raw: list[list[float]] = field(repr=False)
    ratio_to_best_peer: float | None = None
    ci95: tuple[float, float] | None = None
    best_peer: str | None = None
    ratio_to_runtime_peer: float | None = None
    runtime_peer: str | None = None
    runtime_ci95: tuple[float, float] | None = None


def main() -> None:
    arguments = _parse()
    if arguments.markdown:
        print("\n".join(markdown(json.loads((RESULTS / f"{arguments.markdown}.json").read_text()))))
        return
    rows: list[Row] = []
    peers: list[Row] = []
    for model in arguments.models:
        with TemporaryDirectory(prefix="qzoo-bench-") as folder:
            found = candidates(model, Path(folder), arguments.calib_samples)
            for batch in arguments.batch:
                print(f"{model}, batch {batch}: {len(found)} engines x {PROCESSES} x {ROUNDS} rounds", file=sys.stderr)
                ours, theirs = _compare(model, batch, found, Path(folder))
                rows += ours
                peers += theirs
    result = {
        "rows": [asdict(row) for row in rows],
        "peers": [asdict(row) for row in peers],
        **machine(["python", "benchmarks/peers.py", *sys.argv[1:]], PACKAGES),
        "processes": PROCESSES,
        "rounds": ROUNDS,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(_table(rows, peers)))
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{arguments.save}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"kept in {path}", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--calib-samples", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    parser.add_argument("--markdown", metavar="NAME", help="measure nothing; print a kept result as README shows it")
    return parser.parse_args()


def _compare(model: str, batch: int, found: list[Candidate], folder: Path) -> tuple[list[Row], list[Row]]:
    raw = time_in_processes(found, batch=batch, rounds=ROUNDS, processes=PROCESSES, folder=folder)
    peers = [_row(model, batch, c, raw[c.name]) for c in found if not c.ours]
    best = min(peers, key=lambda row: row.latency_ms)
    rows = []
    for candidate in (c for c in found if c.ours):
        own = _row(model, batch, candidate, raw[candidate.name])
        runtime_peer = next(row for row in peers if row.engine == FAMILY[candidate.runtime])
        ratio, interval = latency_ratio(np.array(own.raw), np.array(best.raw))
        beside, beside_interval = latency_ratio(np.array(own.raw), np.array(runtime_peer.raw))
        rows.append(
            replace(
                own,
                ratio_to_best_peer=ratio,
                ci95=interval,
                best_peer=best.engine,
                ratio_to_runtime_peer=beside,
                runtime_ci95=beside_interval,
                runtime_peer=runtime_peer.engine,
            )
        )
    return rows, peers


def _row(model: str, batch: int, candidate: Candidate, raw: list[list[float]]) -> Row:
    median = float(np.median(np.concatenate([np.asarray(times) for times in raw])))
    return Row(model, batch, candidate.name, round(median, 4), round(candidate.sqnr_db, 2), raw)


def markdown(result: dict[str, Any]) -> Iterable[str]:
    """A kept result as a table: qzoo's latencies as ratios to their runtime's fp32 and INT8 peer."""
    yield "| model | batch | runtime | of its fp32 | of its INT8 peer | 95 % interval | peer |"
    yield "|---|---|---|---|---|---|---|"
    for row in result["rows"]:
        runtime, (low, high) = row["engine"].removeprefix("qzoo "), row["runtime_ci95"]
        full = next(
            peer["latency_ms"]
            for peer in result["peers"]
            if (peer["model"], peer["batch"], peer["engine"]) == (row["model"], row["batch"], FP32[runtime])
        )
        yield (
            f"| {row['model']} | {row['batch']} | {runtime} | {row['latency_ms'] / full:.2f} | "
            f"{row['ratio_to_runtime_peer']:.2f} | {low:.2f} to {high:.2f} | {PEER_NAMES[row['runtime_peer']]} |"
        )


def _table(rows: list[Row], peers: list[Row]) -> Iterable[str]:
    yield f"{'model':10} {'batch':>5}  {'engine':22} {'ms':>8} {'SQNR dB':>8}  ratios [95 %]"
    for row in sorted([*rows, *peers], key=lambda r: (r.model, r.batch, r.latency_ms)):
        line = f"{row.model:10} {row.batch:5}  {row.engine:22} {row.latency_ms:8.3f} {row.sqnr_db:8.2f}"
        line += _against(row.ratio_to_runtime_peer, row.runtime_ci95, row.runtime_peer)
        line += _against(row.ratio_to_best_peer, row.ci95, row.best_peer)
        yield line


def _against(ratio: float | None, interval: tuple[float, float] | None, peer: str | None) -> str:
    return "" if interval is None else f"  {ratio:.3f}x [{interval[0]:.3f}, {interval[1]:.3f}] of {peer}"


if __name__ == "__main__":
    main()
