"""Builds one small network of each of timm's families in INT8 for both CPU runtimes, and says what came of it.

    python benchmarks/timm_sweep.py                      # those that results/timm_sweep.json doesn't have yet
    python benchmarks/timm_sweep.py --only NAME --only NAME   # these, again if they are there
    python benchmarks/timm_sweep.py --table              # the table alone

Each build is `qzoo build timm/NAME --int8 --weights random --calib-samples 16`, in a process and a store of its own:
seeded random weights, statistics of BatchNorms set by a forward pass, the placement derived from the network's graph. A
build ends well only if its portable graph computes what the fake-quantized network does, and the engine what its
lowered graph does. After each network the results are kept, so that a sweep goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import onnx_ir as ir
from machine import machine

from qzoo.graph.edit import DEQUANTIZE, constant

RESULTS = Path(__file__).parent / "results" / "timm_sweep.json"
PACKAGES = ("timm", "torch", "onnxruntime", "openvino", "onnx", "onnx-ir", "onnxscript")
RUNTIMES = ("onnxruntime", "openvino")
SAMPLES = 16
NETWORKS = (
    *("resnet18", "resnetv2_18", "regnety_002", "mobilenetv2_050", "mobilenetv3_small_050"),
    *("mobilenetv4_conv_small_050", "efficientnet_b0", "tf_efficientnet_lite0", "tf_efficientnetv2_b0", "tinynet_e"),
    *("ghostnet_050", "rexnet_100", "densenet121", "dla46_c", "hrnet_w18_small", "inception_v3", "xception41"),
    *("vgg11", "repvgg_a0", "ese_vovnet19b_slim", "cspresnet50", "res2net50_26w_4s", "resnest14d", "nfnet_l0"),
    *("hgnetv2_b0", "convnext_atto", "poolformer_s12", "mixer_s32_224", "resmlp_12_224", "vit_tiny_patch16_224"),
    *("deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "levit_128s", "mobilevit_xxs", "edgenext_xx_small"),
    *("fastvit_t8", "coat_lite_tiny", "cait_xxs24_224", "beit_base_patch16_224"),
)
"""One of each family, the smallest or nearly so."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", action="append", help="build these, even if they are there")
    parser.add_argument("--table", action="store_true", help="show what there is")
    arguments = parser.parse_args()
    kept: dict[str, Any] = json.loads(RESULTS.read_text())["networks"] if RESULTS.is_file() else {}
    for name in () if arguments.table else arguments.only or [name for name in NETWORKS if name not in kept]:
        kept[name] = swept(name)
        result = {
            "networks": {one: kept[one] for one in sorted(kept)},
            **machine(["python", "benchmarks/timm_sweep.py"], PACKAGES),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        print(row(name, kept[name]), flush=True)
    print(table(kept))


def swept(name: str) -> dict[str, Any]:
    """What came of one network; where a build for both runtimes fails, of each alone."""
    with TemporaryDirectory(prefix="qzoo-bench-") as home:
        began = perf_counter()
        done = _build(name, RUNTIMES, home)
        found: dict[str, Any] = {"seconds": round(perf_counter() - began, 1)}
        if not done.returncode:
            return found | _read(json.loads(done.stdout)["builds"])
        for runtime in RUNTIMES:
            alone = _build(name, (runtime,), home)
            if alone.returncode:
                found[runtime] = {"built": False, "why": alone.stderr.strip().splitlines()[-1]}
            else:
                found |= _read([json.loads(alone.stdout)])
        return found


def _build(name: str, runtimes: tuple[str, ...], home: str) -> subprocess.CompletedProcess[str]:
    targets = [word for runtime in runtimes for word in ("--target", runtime)]
    words = ["build", f"timm/{name}", "--int8", "--weights", "random", "--calib-samples", str(SAMPLES), *targets]
    return subprocess.run(
        [str(Path(sys.executable).with_name("qzoo")), *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "QZOO_HOME": home},
    )


def _read(builds: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for build in builds:
        bundle = Path(build["bundle"])
        measured = json.loads((bundle / "measurement.json").read_text())
        latency = {precision: one["median_ms"] for precision, one in measured["latency"].items()}
        found[measured["target"]["runtime"]] = {
            "built": True,
            "verified": measured["verified"],
            "engine_db": measured["engine_fidelity"]["sqnr_db"],
            "float_db": measured["fidelity"]["sqnr_db"],
            "latency_ms": latency,
        }
        found["export_db"] = measured["export_fidelity"]["sqnr_db"]
        found["left_in_float"] = [note for note in measured["notes"] if note.startswith("in float: ")]
        found["layers"] = coverage(ir.load(bundle / "portable.onnx"))
        inputs = json.loads((bundle / f"{build['engine']}.json").read_text())["inputs"] if "engine" in build else []
        found["input"] = inputs[0]["shape"] if inputs else None
    return found


def coverage(portable: ir.Model) -> dict[str, list[int]]:
    """Of each kind of layer: how many read INT8, and how many there are."""
    quantized: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for node in portable.graph:
        kind = _kind(node)
        if kind is not None:
            total[kind] += 1
            quantized[kind] += all(_is_quantized(value) for value in list(node.inputs)[:2])
    return {kind: [quantized[kind], total[kind]] for kind in sorted(total)}


def _kind(node: ir.Node) -> str | None:
    fixed = [value is not None and _is_fixed(value) for value in list(node.inputs)[:2]]
    if node.op_type in ("Conv", "ConvTranspose"):
        return "convolution"
    if node.op_type in ("Gemm", "MatMul"):
        return "linear" if any(fixed) else "matmul"
    shapes = {str(value.shape) for value in node.inputs if value is not None}
    return "add" if node.op_type == "Add" and not any(fixed) and len(shapes) == 1 else None


def _is_fixed(value: ir.Value) -> bool:
    producer = _source(value)
    stored = producer is not None and producer.op_type == DEQUANTIZE and constant(producer.inputs[0]) is not None
    return stored or constant(value) is not None


def _is_quantized(value: ir.Value | None) -> bool:
    producer = None if value is None else _source(value)
    return producer is not None and producer.op_type == DEQUANTIZE


def _source(value: ir.Value) -> ir.Node | None:
    """What makes a value; a linear layer's weight may be stored transposed."""
    producer = value.producer()
    while producer is not None and producer.op_type == "Transpose":
        producer = None if producer.inputs[0] is None else producer.inputs[0].producer()
    return producer


HEADINGS = ("network", "export", *(f"{name} dB" for name in RUNTIMES), "conv", "linear", "matmul", "add", "of bf16")


def row(name: str, one: dict[str, Any]) -> str:
    """A line of the table: parities in dB, INT8 layers of all, openvino's INT8 latency over its bf16 one."""
    cells = [name, _decibels(one.get("export_db"))]
    for runtime in RUNTIMES:
        found = one[runtime]
        cells.append(_decibels(found["engine_db"]) if found["built"] else "FAILED")
    for kind in ("convolution", "linear", "matmul", "add"):
        quantized, total = one.get("layers", {}).get(kind, (0, 0))
        cells.append(f"{quantized}/{total}" if total else "-")
    latency = one["openvino"].get("latency_ms", {})
    cells.append(f"{latency['int8'] / latency['bf16']:.2f}" if "bf16" in latency else "-")
    return "| " + " | ".join(cells) + " |"


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def table(kept: dict[str, Any]) -> str:
    """All networks, how many build and verify, and why others don't."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += [row(name, kept[name]) for name in sorted(kept)]
    good = sum(all(one[runtime]["built"] for runtime in RUNTIMES) for one in kept.values())
    lines += ["", f"{good} of {len(kept)} build and verify for {' and '.join(RUNTIMES)}"]
    for name in sorted(kept):
        lines += [
            f"{name}, {runtime}: {kept[name][runtime]['why']}" for runtime in RUNTIMES if "why" in kept[name][runtime]
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
