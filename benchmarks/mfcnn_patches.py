"""mfcnn's engines side by side at batch 1: patches in one pass against the loop over 16, and INT8 against float.

    python benchmarks/mfcnn_patches.py --save mfcnn_patches

The looped network has the same weights, declarations and calibration images, and goes through the same export and
lowering; "as exported" it is the portable graph, which onnxruntime is given without lowering. A ratio is the median
over PROCESSES processes of ROUNDS rounds, each running every engine once in a random order, with a bootstrap 95 %
interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
from loading import Candidate
from machine import machine
from timing import time_in_processes

from qzoo.measure import latency_ratio
from qzoo.pipeline.assemble import build_engine
from qzoo.pipeline.build import facts_of
from qzoo.pipeline.plan import Options, Plan, make_plan
from qzoo.pipeline.prepare import prepare
from qzoo.pipeline.progress import Silent
from qzoo.records import encode
from qzoo.registry import Registry
from qzoo.spec import Precision
from qzoo.store import Store

PROCESSES, ROUNDS = 5, 30
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "onnxruntime", "openvino", "onnx", "pytorch-quantization")
AS_EXPORTED = "as exported"
RATIOS = (
    ("onnxruntime fp32, looped", "onnxruntime fp32"),
    ("onnxruntime int8, looped", "onnxruntime int8"),
    ("onnxruntime int8, looped as exported", "onnxruntime int8"),
    ("onnxruntime fp32, looped", "onnxruntime int8"),
    ("onnxruntime int8", "onnxruntime fp32"),
    ("openvino int8", "openvino fp32"),
    ("openvino int8", "openvino bf16"),
)


@dataclass(frozen=True)
class Row:
    """One engine: its median in milliseconds, its size, and what its graph is made of before the runtime has it."""

    engine: str
    latency_ms: float
    size_bytes: int
    nodes: int
    convolutions: int


@dataclass(frozen=True)
class Ratio:
    """The median of one engine's latency over another's, and its 95 % interval."""

    engine: str
    of: str
    ratio: float
    ci95: tuple[float, float]


def main() -> None:
    arguments = _parse()
    with TemporaryDirectory(prefix="qzoo-bench-") as folder:
        built = list(_engines(Path(folder)))
        found = [candidate for candidate, _ in built]
        times = time_in_processes(found, batch=1, rounds=ROUNDS, repeats=PROCESSES)
        rows = [_row(candidate, graph, times[candidate.name]) for candidate, graph in built]
    ratios = [Ratio(a, b, *latency_ratio(np.array(times[a]), np.array(times[b]))) for a, b in RATIOS if b in times]
    result = {
        "rows": [asdict(row) for row in rows],
        "ratios": [asdict(ratio) for ratio in ratios],
        "raw": times,
        **machine(["python", "benchmarks/mfcnn_patches.py", *sys.argv[1:]], PACKAGES),
        "processes": PROCESSES,
        "rounds": ROUNDS,
    }
    print(json.dumps(result) if arguments.json else "\n".join(_table(rows, ratios)))
    if arguments.save:
        path = RESULTS / f"{arguments.save}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"kept in {path}", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    return parser.parse_args()


def _engines(folder: Path) -> Iterator[tuple[Candidate, ir.Model]]:
    plans = {name: _plan(name) for name in ("onnxruntime", "openvino")}
    ort = plans["onnxruntime"]
    looped = replace(ort, entry=replace(ort.entry, spec=replace(ort.spec, builder="mfcnn_loop:looped_mfcnn")))
    for plan, kind in ((ort, ""), (looped, "looped"), (plans["openvino"], "")):
        prepared = prepare(plan, Silent())
        yield _engine(plan, prepared.portable, "int8", kind, folder)
        for precision in plan.backend.float_precisions:
            yield _engine(plan, prepared.float_graph, precision, kind, folder)
        if kind:
            yield _engine(plan, prepared.portable, "int8", f"{kind} {AS_EXPORTED}", folder)


def _plan(target: str) -> Plan:
    options = Options(model="mfcnn", target=target)
    return make_plan(options, Registry.load(), Store.default().home / "cache")


def _engine(plan: Plan, graph: ir.Model, precision: Precision, kind: str, folder: Path) -> tuple[Candidate, ir.Model]:
    name = f"{plan.backend.name} {precision}" + (f", {kind}" if kind else "")
    recipe = replace(plan.recipe, precision=precision)
    lowered = graph if kind.endswith(AS_EXPORTED) else plan.backend.lower(graph, recipe, plan.target)
    own = folder / name.replace(" ", "-")
    own.mkdir()
    path, record, _ = build_engine(lowered, recipe, plan.backend, plan.target, facts_of(plan), own)
    path.with_name(f"{path.name}.json").write_bytes(encode(record))
    return Candidate(name, "qzoo", str(path), plan.backend.name, ours=True), lowered


def _row(candidate: Candidate, graph: ir.Model, times: list[list[float]]) -> Row:
    operators = Counter(node.op_type for node in graph.graph)
    return Row(
        engine=candidate.name,
        latency_ms=round(float(np.median(np.array(times))), 4),
        size_bytes=Path(candidate.path).stat().st_size,
        nodes=sum(operators.values()),
        convolutions=operators["Conv"],
    )


def _table(rows: list[Row], ratios: list[Ratio]) -> Iterator[str]:
    for row in sorted(rows, key=lambda row: row.latency_ms):
        yield f"{row.engine:37} {row.latency_ms:8.3f} ms  {row.nodes:5} nodes, {row.convolutions:3} convolutions"
    for ratio in ratios:
        yield f"{ratio.engine:37} {ratio.ratio:.3f}x [{ratio.ci95[0]:.3f}, {ratio.ci95[1]:.3f}] of {ratio.of}"


if __name__ == "__main__":
    main()
