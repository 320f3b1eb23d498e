"""How long a whole build of ResNet-50 takes and how much memory, beside the bare float network on the same images.

    python benchmarks/build_time.py --save build_time

A build is `qzoo build resnet50 --int8 --weights random --calib-samples 256`, into an empty store, in a process of its
own; the bare pass is eager fp32 of the same network over 256 images, 16 at a time. They take turns. The goal: a build
takes at most twice the pass and 20 s, and 3 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from machine import machine

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "onnx", "onnx-ir", "onnxscript")
SAMPLES, BATCH = 256, 16
ALLOWED_PASSES, ALLOWED_SECONDS, ALLOWED_GB = 2, 20, 3
EAGER = f"""
from time import perf_counter
import torch
from qzoo_resnet.model import resnet50
network, images = resnet50(1000).eval(), torch.randn({BATCH}, 3, 224, 224)
with torch.inference_mode():
    network(images)
    began = perf_counter()
    for _ in range({SAMPLES // BATCH}):
        network(images)
print(perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", metavar="NAME", help="keep the result as benchmarks/results/NAME.json")
    arguments = parser.parse_args()
    passes, builds, memory, profile = [], [], [], {}
    for _ in range(arguments.rounds):
        passes.append(float(_run([sys.executable, "-c", EAGER])[0]))
        with TemporaryDirectory(prefix="qzoo-bench-") as home:
            began = perf_counter()
            said, peak = _run(_command(arguments.target), QZOO_HOME=home)
            builds.append(perf_counter() - began)
            memory.append(peak)
            bundle = Path(json.loads(said)["bundle"])
            profile = json.loads((bundle / "measurement.json").read_text())["seconds"]
    allowed = [ALLOWED_PASSES * eager + ALLOWED_SECONDS for eager in passes]
    result = {
        "target": arguments.target,
        "eager_s": passes,
        "build_s": builds,
        "allowed_s": allowed,
        "build_of_allowed": median(build / limit for build, limit in zip(builds, allowed, strict=True)),
        "peak_gb": max(memory),
        "last_build_seconds_by_stage": profile,
        **machine(["python", "benchmarks/build_time.py", *sys.argv[1:]], PACKAGES),
    }
    print(f"eager pass {median(passes):.1f} s, build {median(builds):.1f} s of {median(allowed):.1f} s allowed")
    print(f"peak memory {max(memory):.2f} GB of {ALLOWED_GB} GB allowed")
    for name, seconds in sorted(profile.items(), key=lambda entry: -entry[1]):
        print(f"  {seconds:6.1f} s  {name}")
    if arguments.save:
        (RESULTS / f"{arguments.save}.json").write_text(json.dumps(result, indent=1) + "\n")


def _command(target: str) -> list[str]:
    words = ["build", "resnet50", "--int8", "--weights", "random", "--calib-samples", str(SAMPLES), "--target", target]
    return [str(Path(sys.executable).with_name("qzoo")), *words, "--json"]


def _run(command: list[str], **environment: str) -> tuple[str, float]:
    """Its stdout, and the most memory that it or one of its children held, in GB."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:3])} ended with status {status}")
    return said, used.ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
