"""The entropy and mse calibrators beside pytorch-quantization's, given the same counts, in one run.

    python benchmarks/calibrators.py --save calibrators

Histograms of 2,048 bins up to the maximum, the toolkit's default, of five distributions and of three of resnet20's
activations on 64 digits. In every round each solver runs once, in a random order; `faster` is the median of the
toolkit's time over ours in the same round, with its bootstrap 95 % interval. The toolkit's entropy search is its own
function; its mse search calls .cuda(), so its formula is looped over the candidates with its own fake_tensor_quant.
`apart` is how many bins lie between the two amax. `full` is our time on the 8,192 bins that a build solves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray

from qzoo.measure import latency_ratio, timings, wall
from qzoo.pipeline import Options, make_plan
from qzoo.pipeline.forward import batches_of, few
from qzoo.pipeline.images import read_calibration
from qzoo.pipeline.network import load_network
from qzoo.pipeline.progress import Silent
from qzoo.quant.calibrate import calibrate_weights
from qzoo.quant.histogram import Collector
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.solvers import entropy_amax, mse_amax, solver
from qzoo.registry import Registry

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "pytorch-quantization", "qzoo", "torch")
BINS, START, BITS = 2048, 128, 8
VALUES = 1_000_000
AT_LEAST = {"entropy": 30.0, "mse": 10.0}
AIM = 100.0
ACTIVATIONS = ("layer1.0.add.skip_quantizer", "layer2.1.conv2.input_quantizer", "fc.input_quantizer")

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One method on one histogram: medians in milliseconds; how often ours runs in the toolkit's time."""

    data: str
    method: str
    ours_ms: float
    toolkit_ms: float
    faster: float
    faster_ci95: tuple[float, float]
    at_least: float
    bins_apart: float
    full_ms: float
    raw_ms: dict[str, list[float]] = field(repr=False)

    @property
    def met(self) -> bool:
        """Whether it is as fast as asked for, and finds the toolkit's amax to within a bin."""
        return self.faster >= self.at_least and self.bins_apart <= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's, which only the toolkit's mse formula uses")
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    values = _distributions() | _activations()
    torch.set_num_threads(arguments.threads)
    first_call = _first_call()
    rows = []
    for name, magnitudes in values.items():
        for method in AT_LEAST:
            print(f"{method} of {name}", file=sys.stderr)
            rows.append(_row(name, method, magnitudes, arguments.rounds))
    print("\n".join(_table(rows)))
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{arguments.save}.json"
        found = {
            "rows": [asdict(row) | {"met": row.met} for row in rows],
            "median_faster": {m: float(np.median([r.faster for r in rows if r.method == m])) for m in AT_LEAST},
            "first_call_ms": first_call,
            **machine(["python", "benchmarks/calibrators.py", *sys.argv[1:]], PACKAGES),
            "torch_threads": arguments.threads,
            "bins": BINS,
            "rounds": arguments.rounds,
        }
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"kept in {path}", file=sys.stderr)
    if not all(row.met for row in rows):
        sys.exit(1)


def _distributions() -> dict[str, torch.Tensor]:
    draw = np.random.default_rng(0)
    normal = draw.standard_normal(VALUES)
    made = {
        "Gaussian": normal,
        "Laplace": draw.laplace(size=VALUES),
        "ReLU'd Gaussian": np.maximum(normal, 0),
        "bimodal": np.where(draw.random(VALUES) < 0.5, 0.5 * normal, 4 + 0.7 * normal),
        "Student's t, 3 degrees": draw.standard_t(3, size=VALUES),
    }
    return {name: torch.from_numpy(np.abs(values).astype(np.float32)) for name, values in made.items()}


def _activations() -> dict[str, torch.Tensor]:
    """Magnitudes that three of resnet20's quantizers see."""
    with TemporaryDirectory(prefix="qzoo-calibrators-") as cache:
        plan = make_plan(Options(model="resnet20", target="onnxruntime"), Registry.load(), Path(cache))
        images = read_calibration(plan, Silent())
        network = load_network(plan.spec, plan.weights, few(images)).network
    quantized = insert_quantizers(network, plan.spec, plan.recipe)
    calibrate_weights(quantized)
    seen: dict[str, list[torch.Tensor]] = {path: [] for path in ACTIVATIONS}
    for path, kept in seen.items():
        _keep_inputs(quantized.get_submodule(path), kept)
    with torch.no_grad():
        for batch in batches_of(images.images):
            quantized(batch)
    return {f"resnet20 {path.removesuffix('_quantizer')}": torch.cat(kept) for path, kept in seen.items()}


def _keep_inputs(quantizer: torch.nn.Module, kept: list[torch.Tensor]) -> None:
    def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept.append(inputs[0].abs().flatten())

    quantizer.register_forward_pre_hook(keep)


def _first_call() -> dict[str, float]:
    """What the first call of a process takes, in milliseconds: it makes the tables of bins that later ones share."""
    collector = Collector()
    collector.collect(torch.linspace(0, 1, VALUES))
    taken = {}
    for method in AT_LEAST:
        began = perf_counter()
        solver(method)(collector)
        taken[method] = round((perf_counter() - began) * 1e3, 2)
    return taken


def _row(name: str, method: str, magnitudes: torch.Tensor, rounds: int) -> Row:
    top = float(magnitudes.max())
    counts: Counts = torch.histc(magnitudes.double(), BINS, 0, top).numpy().astype(np.int64)
    width = top / BINS
    ours, theirs = SOLVERS[method]
    collector = Collector()
    collector.collect(magnitudes)
    solve = solver(method)
    times = timings(
        {
            "ours": wall(lambda: ours(counts, width)),
            "toolkit": wall(lambda: theirs(counts, width)),
            "full": wall(lambda: solve(collector)),
        },
        rounds=rounds,
    )
    faster, interval = latency_ratio(times["toolkit"], times["ours"])
    return Row(
        data=name,
        method=method,
        ours_ms=round(float(np.median(times["ours"])), 3),
        toolkit_ms=round(float(np.median(times["toolkit"])), 1),
        faster=round(faster, 1),
        faster_ci95=(round(interval[0], 1), round(interval[1], 1)),
        at_least=AT_LEAST[method],
        bins_apart=round(abs(ours(counts, width) - theirs(counts, width)) / width, 3),
        full_ms=round(float(np.median(times["full"])), 3),
        raw_ms={who: [round(float(time), 3) for time in found] for who, found in times.items()},
    )


def _toolkit_entropy(counts: Counts, width: float) -> float:
    from pytorch_quantization.calib.histogram import _compute_amax_entropy

    edges = np.arange(len(counts) + 1) * width
    return float(_compute_amax_entropy(counts.copy(), edges, BITS, unsigned=False, stride=1, start_bin=START))


def _toolkit_mse(counts: Counts, width: float) -> float:
    from pytorch_quantization.tensor_quant import fake_tensor_quant

    counted = torch.from_numpy(counts).float()
    edges = torch.from_numpy(np.arange(len(counts) + 1) * width).float()
    centers = (edges[1:] + edges[:-1]) / 2
    errors = [
        ((fake_tensor_quant(centers, centers[i], BITS) - centers) ** 2 * counted).mean()
        for i in range(START, len(centers))
    ]
    return float(centers[START + int(np.argmin(errors))])


SOLVERS: dict[str, tuple[Callable[[Counts, float], float], Callable[[Counts, float], float]]] = {
    "entropy": (entropy_amax, _toolkit_entropy),
    "mse": (mse_amax, _toolkit_mse),
}


def _table(rows: Iterable[Row]) -> Iterable[str]:
    heading = f"{'method':8} {'data':32} {'ours ms':>8} {'toolkit ms':>11}  {'faster [95 %]':26}"
    yield f"{heading} {'apart':>5} {'full ms':>8}"
    for row in rows:
        faster = f"{row.faster:.0f}x [{row.faster_ci95[0]:.0f}, {row.faster_ci95[1]:.0f}]"
        bound = f"{'met' if row.met else 'NOT MET'} ({row.at_least:g}x)" + ", aim missed" * (row.faster < AIM)
        yield (
            f"{row.method:8} {row.data:32} {row.ours_ms:8.2f} {row.toolkit_ms:11.1f}  {faster:26} "
            f"{row.bins_apart:5.2f} {row.full_ms:8.2f} {bound}"
        )


if __name__ == "__main__":
    main()
