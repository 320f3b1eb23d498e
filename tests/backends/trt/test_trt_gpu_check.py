"""benchmarks/gpu.py, as far as it goes without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

from qzoo.backends.trt.gpu import why_no_gpu
from qzoo.backends.trt.run import Trace

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def check():
    """The script as a module."""
    spec = spec_from_file_location("gpu_check", SCRIPT)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their annotations up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: run the script itself")
def test_without_a_gpu_it_ends_with_4_and_says_what_is_missing():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--plugin-dir", ROOT / "plugins"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert why_no_gpu() in done.stderr


@pytest.mark.parametrize(
    ("figures", "passes"),
    [
        ({"cosine": 0.999, "top1_agreement": 0.99}, True),
        ({"cosine": 0.9989, "top1_agreement": 1.0}, False),
        ({"cosine": 1.0, "top1_agreement": 0.98}, False),
        ({"cosine": 1.0, "top1_agreement": None}, True),
        ({"problem": "the engine could not be built"}, False),
        ({}, True),
    ],
)
def test_an_engine_passes_by_cosine_and_agreement(check, figures, passes):
    row = check.Row(model="m", runtime="tensorrt", precision="int8", batch=1, **figures)
    assert row.passes is passes
    assert ("FAILS" in check.shown(row)) is not passes


def test_times_are_medians_with_and_without_transfers(check):
    traces = [
        Trace(
            enqueue=(0, 1),
            to_device=(at, at + 1),
            compute=(at + 1, at + 1 + took),
            to_host=(at + 1 + took, at + 4 + took),
        )
        for at, took in ((0.0, 1.0), (10.0, 2.0), (20.0, 6.0))
    ]
    row = check.timed(check.Row(model="m", runtime="tensorrt", precision="int8", batch=8), traces)
    assert (row.compute_ms, row.median_ms) == (2.0, 6.0)
    assert row.images_per_second == pytest.approx(8000 / 6)
    assert row.p99_ms == pytest.approx(np.percentile([5, 6, 10], 99))
