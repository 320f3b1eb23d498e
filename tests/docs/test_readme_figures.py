"""The figures README states are those that were measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
XEON = [f"peers-{model}" for model in ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "mfcnn")]
EPYC = [f"peers-epyc-{model}" for model in ("resnet18", "mobilenet_v2", "mobilenet_v3_large", "mfcnn")]


@pytest.mark.parametrize("results", [XEON, EPYC], ids=["Xeon", "EPYC"])
def test_a_peer_table_is_the_kept_results(results):
    command = [sys.executable, str(ROOT / "benchmarks/peers.py"), "--markdown", *results]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in README


@pytest.mark.parametrize("name", [*XEON, *EPYC])
def test_the_kept_result_names_its_command_versions_and_cpu(name):
    kept = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    assert kept["command"].startswith("python benchmarks/peers.py")
    assert {"onnxruntime", "openvino", "nncf", "torch"} <= kept["versions"].keys()
    assert ("EPYC" in kept["cpu"]) == (name in EPYC)


@pytest.mark.parametrize("model", ["resnet20", "mfcnn"])
def test_a_models_rows_are_what_the_build_measures(model, bundles, mfcnn_bundles):
    for runtime, bundle in {"resnet20": bundles, "mfcnn": mfcnn_bundles}[model].items():
        measured = bundle.measurement
        row = re.search(rf"\| {model} \| {runtime} \| (\d+) \| (\d+) \| ([\d.]+)x \|", README)
        size = measured.size_bytes
        assert (int(row[1]), int(row[2])) == (measured.accuracy["float"].correct, measured.accuracy["engine"].correct)
        assert abs(float(row[3]) - size["engine"] / size["float"]) < 0.01
