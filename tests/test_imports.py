"""What starts without torch: measured in a process of its own, after the command has run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

HEAVY = ("torch", "torchvision", "timm", "pytorch_quantization", "onnxscript")
RUNTIMES = ("onnxruntime", "openvino")
LIGHT = ("numpy", "sklearn", "msgspec", "tomllib", "rich", "PIL", "cryptography", "requests", "onnx")
"""What costs little, but more than `qzoo --help` and `qzoo list` take (benchmarks/startup.py)."""
REPORT = f"""
import json, sys
loaded = [name for name in {HEAVY + RUNTIMES + LIGHT!r} if name in sys.modules]
print(json.dumps(loaded), file=sys.stderr)
"""
ENTRY = f"""
import sys
from qzoo.cli.main import entry
try:
    entry()
finally:
{"".join(f"    {line}" + chr(10) for line in REPORT.strip().splitlines())}
"""


def loaded_after(code: str, *arguments: str, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.fixture
def digit(tmp_path):
    path = tmp_path / "grey.png"
    Image.new("L", (8, 8), 128).save(path)
    return str(path)


def test_import_qzoo_loads_nothing_heavy():
    assert loaded_after(f"import qzoo\n{REPORT}") == set()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["build", "--help"], ["list"]], ids=" ".join)
def test_help_and_list_load_not_even_what_is_light(words, tmp_path):
    nowhere = {"QZOO_HOME": str(tmp_path), "QZOO_CONFIG": str(tmp_path / "none.toml"), "QZOO_PLUGINS": ""}
    assert loaded_after(ENTRY, *words, **nowhere) == set()


@pytest.mark.parametrize(
    "words",
    [["doctor"], ["info", "resnet20"], ["info", "resnet20:int8"], ["build", "resnet20", "--dry-run"]],
    ids=" ".join,
)
def test_looking_loads_neither_torch_nor_a_runtime(words, built_home, bundles):
    assert loaded_after(ENTRY, *words, QZOO_HOME=str(built_home)).isdisjoint({*HEAVY, *RUNTIMES})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_running_an_engine_loads_its_own_runtime_only(runtime, built_home, bundles, digit):
    loaded = loaded_after(ENTRY, "run", "resnet20:int8", "--target", runtime, digit, QZOO_HOME=str(built_home))
    assert loaded & {*HEAVY, *RUNTIMES} == {runtime}
    assert loaded.isdisjoint({"cryptography", "requests", "onnx"})  # for what was built here no signature is read


def test_a_build_served_from_the_store_loads_neither_torch_nor_a_runtime(built_home, bundles):
    words = ("build", "resnet20", "--int8", "--target", "openvino", "--json")
    assert loaded_after(ENTRY, *words, QZOO_HOME=str(built_home)).isdisjoint({*HEAVY, *RUNTIMES})
