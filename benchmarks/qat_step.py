"""A training step with fake quantization beside the float step: resnet20, batch 64, in one run.

    python benchmarks/qat_step.py --save qat_step

A step is forward, loss, backward and the optimizer's update. The networks take turns, in an order drawn anew each
round; the ratio is the median over the rounds, with its bootstrap 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import nn
from torch.nn import functional as F

from qzoo.measure import latency_ratio, timings, wall
from qzoo.pipeline.network import make_network
from qzoo.quant.calibrate import calibrate
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import quantizers
from qzoo.registry import Registry
from qzoo.spec import Recipe
from qzoo.train.optimize import make_optimizer

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "pytorch-quantization", "qzoo")
BATCH = 64


def main() -> None:
    arguments = _parse()
    networks = _networks()
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
    times = timings(
        {name: wall(_step(network, images, labels)) for name, network in networks.items()}, rounds=arguments.rounds
    )
    rows = []
    for name, own in times.items():
        ratio, interval = latency_ratio(own, times["float"])
        rows.append({"step": name, "median_ms": round(float(np.median(own)), 2), "ratio": ratio, "ci95": interval})
        print(f"{name:20} {rows[-1]['median_ms']:8} ms  {ratio:.3f}x [{interval[0]:.3f}, {interval[1]:.3f}] of float")
    if arguments.save:
        found = {
            "rows": rows,
            "raw_ms": {name: own.round(3).tolist() for name, own in times.items()},
            **machine(["python", "benchmarks/qat_step.py", *sys.argv[1:]], PACKAGES),
        }
        (RESULTS / f"{arguments.save}.json").write_text(json.dumps(found, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    return parser.parse_args()


def _networks() -> dict[str, nn.Module]:
    spec = Registry.load().model("resnet20").spec
    torch.manual_seed(0)
    network, recipe = make_network(spec, 10), Recipe(target="onnxruntime", precision="int8")
    made: dict[str, nn.Module] = {"float": network.train()}
    for name in ("qat", "qat, learned ranges"):
        quantized = insert_quantizers(network, spec, recipe, trainable=True)
        calibrate(quantized, [torch.randn(BATCH, 3, 32, 32)], "max", "")
        for quantizer in quantizers(quantized).values() if name != "qat" else ():
            quantizer.learn_amax()
        made[name] = quantized.train()
    return made


def _step(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    optimizer = make_optimizer(network, Registry.load().model("resnet20").spec.training)

    def step() -> None:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
