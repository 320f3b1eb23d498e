"""qzoo's engines against the peers: same float weights, same calibration images, same threads, one run.

    python benchmarks/peers.py --models resnet18 resnet50 mobilenet_v2 --batch 1 8 --save peers
    python benchmarks/peers.py --models resnet50 --batch 1 --json

For every model and batch: onnxruntime fp32, onnxruntime quantize_static (QDQ, U8S8, per channel), openvino f32 and
bf16, NNCF quantize with its default and its mixed preset, torch.compile; and qzoo's recipe for either runtime and what
`--autotune` keeps. Each is alone in its process, as in use. A ratio is the median of ours/peer's over PROCESSES
processes of ROUNDS rounds, each round giving every engine a turn in a random order, with a bootstrap 95 % interval. In
the same rounds each runtime's INT8 matrix product is timed; the faster one is the machine's INT8 peak.
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
from candidates import open_zoo, peers, recipes, tuned
from loading import Candidate
from machine import machine
from macs import gmacs
from peak import GMAC
from plot import draw
from timing import time_in_processes

from qzoo.measure import latency_ratio

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "mfcnn")
PROCESSES, ROUNDS = 5, 15
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "nncf", "onnx", "pytorch-quantization")
FAMILY = {"onnxruntime": "ort quantize_static", "openvino": "ov nncf"}
"""The INT8 peer on the same runtime."""

PEAKS = tuple(
    Candidate(f"{runtime} int8 product", "peak", "", runtime, ours=False) for runtime in ("onnxruntime", "openvino")
)


@dataclass(frozen=True)
class Row:
    """One engine's figures. `ratio_to_*` are medians of ours/theirs with their 95 % intervals; peers have none.

    `peak_fraction` is the model's multiply-accumulates over the faster INT8 product's in the same time, by medians.
    """

    model: str
    batch: int
    engine: str
    latency_ms: float
    sqnr_db: float
    int8: bool
    correct: int | None
    total: int | None
    kept: str
    peak_fraction: float
    raw: list[list[float]] = field(repr=False)
    ratio_to_best_peer: float | None = None
    ci95: tuple[float, float] | None = None
    best_peer: str | None = None
    best_int8_peer_sqnr_db: float | None = None
    ratio_to_runtime_peer: float | None = None
    runtime_peer: str | None = None
    runtime_ci95: tuple[float, float] | None = None


def main() -> None:
    arguments = _parse()
    if arguments.markdown:
        print("\n".join(markdown([json.loads((RESULTS / f"{name}.json").read_text()) for name in arguments.markdown])))
        return
    rows: list[Row] = []
    theirs: list[Row] = []
    tuning = []
    for model in arguments.models:
        with TemporaryDirectory(prefix="qzoo-bench-") as folder:
            zoo = open_zoo(model, Path(folder), arguments.calib_samples)
            found = [*peers(zoo), *recipes(zoo)]
            for batch in arguments.batch:
                chosen = tuned(zoo, batch)
                kept = chosen.kept
                print(
                    f"{model}, batch {batch}: {len(found) + 1} engines, {kept.hint} kept", file=sys.stderr, flush=True
                )
                work = gmacs(zoo.float_graph, batch)
                ours, others = _compare(model, batch, [*found, kept], work, arguments)
                rows += ours
                theirs += others
                tuning.append(
                    {"model": model, "batch": batch, "candidates": chosen.tried, "slowest_layers": chosen.slowest}
                )
    result = {
        "rows": [asdict(row) for row in rows],
        "peers": [asdict(row) for row in theirs],
        "tuning": tuning,
        **machine(["python", "benchmarks/peers.py", *sys.argv[1:]], PACKAGES),
        "processes": arguments.processes,
        "rounds": arguments.rounds,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(_table(rows, theirs)))
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{arguments.save}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        draw(result, path.with_suffix(".png"))
        print(f"kept in {path} and {path.with_suffix('.png').name}", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--calib-samples", type=int, default=64)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json, and a plot")
    parser.add_argument(
        "--markdown", nargs="+", metavar="NAME", help="measure nothing; print kept results as README shows them"
    )
    return parser.parse_args()


def _compare(
    model: str, batch: int, found: list[Candidate], work: float, arguments: argparse.Namespace
) -> tuple[list[Row], list[Row]]:
    timed = [*found, *PEAKS]
    raw = time_in_processes(timed, batch=batch, rounds=arguments.rounds, repeats=arguments.processes)
    peak = max(GMAC / float(np.median(np.concatenate([*map(np.asarray, raw[one.name])]))) for one in PEAKS)
    others = [_row(model, batch, c, raw[c.name], work / peak) for c in found if not c.ours]
    best = min(others, key=lambda row: row.latency_ms)
    finest = max(row.sqnr_db for row in others if row.int8)
    rows = []
    for candidate in (c for c in found if c.ours):
        own = _row(model, batch, candidate, raw[candidate.name], work / peak)
        runtime_peer = next(row for row in others if row.engine == FAMILY[candidate.runtime])
        ratio, interval = latency_ratio(np.array(own.raw), np.array(best.raw))
        beside, beside_interval = latency_ratio(np.array(own.raw), np.array(runtime_peer.raw))
        rows.append(
            replace(
                own,
                ratio_to_best_peer=ratio,
                ci95=interval,
                best_peer=best.engine,
                best_int8_peer_sqnr_db=finest,
                ratio_to_runtime_peer=beside,
                runtime_ci95=beside_interval,
                runtime_peer=runtime_peer.engine,
            )
        )
    return rows, others


def _row(model: str, batch: int, candidate: Candidate, raw: list[list[float]], at_peak_ms: float) -> Row:
    median = float(np.median(np.concatenate([np.asarray(times) for times in raw])))
    return Row(
        model=model,
        batch=batch,
        engine=candidate.name,
        latency_ms=round(median, 4),
        sqnr_db=round(candidate.sqnr_db, 2),
        int8=candidate.int8,
        correct=candidate.correct,
        total=candidate.total,
        kept=candidate.hint if candidate.ours else "",
        peak_fraction=round(at_peak_ms / median, 3),
        raw=raw,
    )


def markdown(results: list[dict[str, Any]]) -> Iterable[str]:
    """Kept results as a table: the engine that --autotune keeps, against the best peer."""
    yield "| model | batch | `--autotune` keeps | of best peer | 95 % interval | best peer | SQNR | best INT8 peer's |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in [row for result in results for row in result["rows"]]:
        if row["engine"] != "qzoo autotune":
            continue
        low, high = row["ci95"]
        yield (
            f"| {row['model']} | {row['batch']} | {row['kept']} | {row['ratio_to_best_peer']:.2f} | {low:.2f} to "
            f"{high:.2f} | {row['best_peer']} | {row['sqnr_db']:.1f} dB | {row['best_int8_peer_sqnr_db']:.1f} dB |"
        )


def _table(rows: list[Row], others: list[Row]) -> Iterable[str]:
    yield f"{'model':18} {'batch':>5}  {'engine':22} {'ms':>8} {'SQNR dB':>8} {'correct':>8} {'of peak':>8}  ratios"
    for row in sorted([*rows, *others], key=lambda r: (r.model, r.batch, r.latency_ms)):
        right = "-" if row.correct is None else f"{row.correct}/{row.total}"
        line = f"{row.model:18} {row.batch:5}  {row.engine:22} {row.latency_ms:8.3f} {row.sqnr_db:8.2f} {right:>8}"
        line += f" {row.peak_fraction:8.2f}"
        line += _against(row.ratio_to_runtime_peer, row.runtime_ci95, row.runtime_peer)
        line += _against(row.ratio_to_best_peer, row.ci95, row.best_peer)
        yield line + (f"  {row.kept}" if row.kept else "")


def _against(ratio: float | None, interval: tuple[float, float] | None, peer: str | None) -> str:
    return "" if interval is None else f"  {ratio:.3f}x [{interval[0]:.3f}, {interval[1]:.3f}] of {peer}"


if __name__ == "__main__":
    main()
