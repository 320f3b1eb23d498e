"""What fine-tuning with fake quantization wins back where calibration alone loses accuracy: resnet20, 3-bit weights.

    python benchmarks/qat_recovery.py --save qat_recovery

For each seed (of calibration samples, validation images, order and augmentation) `qzoo train --qat` starts from the
shipped weights. Counted on the digits' 360 held-out images: the float network, the calibrated one, the fine-tuned one;
and the fine-tuned one's engine, as `qzoo build` makes it from best.safetensors. Won back = (fine-tuned - calibrated) /
(float - calibrated), of the sums over the seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import machine

from qzoo.pipeline import Options, build_all, make_plan
from qzoo.pipeline.progress import Silent
from qzoo.pipeline.training import TrainOptions, train
from qzoo.registry import Registry
from qzoo.store import Store

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "onnxruntime", "pytorch-quantization", "qzoo")


@dataclass(frozen=True)
class Row:
    """Correct of `total` held-out images, of one seed."""

    seed: int
    total: int
    float: int
    calibrated: int
    fine_tuned: int
    engine: int


def main() -> None:
    arguments = _parse()
    rows = [_run(seed, arguments) for seed in arguments.seeds]
    lost = sum(row.float - row.calibrated for row in rows)
    won = sum(row.fine_tuned - row.calibrated for row in rows) / lost
    print(f"{'seed':>4} {'float':>6} {'calibrated':>11} {'fine-tuned':>11} {'engine':>7}   of {rows[0].total}")
    for row in rows:
        print(f"{row.seed:4} {row.float:6} {row.calibrated:11} {row.fine_tuned:11} {row.engine:7}")
    print(f"lost by calibration: {lost / len(rows):.1f} images a seed; won back: {won:.0%}")
    if arguments.save:
        found = {
            "rows": [asdict(row) for row in rows],
            "mean_lost": lost / len(rows),
            "won_back": won,
            **machine(["python", "benchmarks/qat_recovery.py", *sys.argv[1:]], PACKAGES),
        }
        (RESULTS / f"{arguments.save}.json").write_text(json.dumps(found, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--weight-bits", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learn-amax", action="store_true")
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    return parser.parse_args()


def _run(seed: int, arguments: argparse.Namespace) -> Row:
    registry = Registry.load()
    with TemporaryDirectory(prefix="qzoo-bench-") as folder:
        store = Store(Path(folder) / "home")
        options = TrainOptions(
            model="resnet20",
            qat=True,
            weight_bits=arguments.weight_bits,
            epochs=arguments.epochs,
            learn_amax=arguments.learn_amax or None,
            seed=seed,
            out=Path(folder) / "run",
        )
        found = train(options, registry, store, Silent())
        plan = make_plan(
            Options(model="resnet20", target="onnxruntime", weights=found.weights, max_drop=100.0),
            registry,
            store.home / "cache",
        )
        (bundle,) = build_all([plan], store)
        counted = bundle.measurement.accuracy
    if found.float is None or found.calibrated is None or counted is None:
        raise RuntimeError("training with fake quantization counts all three")
    print(f"seed {seed}: {found.calibrated.correct} -> {found.held_out.correct}", file=sys.stderr)
    return Row(
        seed=seed,
        total=found.held_out.total,
        float=found.float.correct,
        calibrated=found.calibrated.correct,
        fine_tuned=found.held_out.correct,
        engine=counted["engine"].correct,
    )


if __name__ == "__main__":
    main()
