"""qzoo train, as a user and as torchrun calls it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2", "-m", "qzoo", "train"]

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def tiny(tiny_dir) -> Path:
    return tiny_dir


def test_it_trains_and_says_how_to_build(qzoo, tiny, tmp_path):
    ended = qzoo("train", "tiny", "--plugin-dir", tiny, "--epochs", 2, "--out", tmp_path / "run")
    assert ended.code == 0
    assert "tiny trained on digits: 1293 images, 144 validate, 2 epochs" in ended.out
    built = ended.out.splitlines()[-1].partition("qzoo ")[2].split()
    assert qzoo(*built, "--plugin-dir", tiny, "--target", "onnxruntime", "--max-drop", 100).code == 0


def test_json_is_one_object_with_absolute_paths(qzoo, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = qzoo("train", "tiny", "--plugin-dir", tiny, "--epochs", 1, "--json").json
    assert found["held_out"]["total"] == 360
    assert Path(found["weights"]) == tmp_path / "tiny-training" / "best.safetensors"
    assert all(Path(found[name]).is_file() for name in ("weights", "checkpoint", "curve"))


def test_two_processes_train_one_network(tiny, tmp_path):
    words = ["--plugin-dir", str(tiny), "--epochs", "2", "--batch-size", "64", "--json", "--out", str(tmp_path / "run")]
    done = subprocess.run([*TORCHRUN, "tiny", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # one object: the other process is silent
    assert found["history"][0]["training"]["total"] == 1293 // 64 * 64
    assert found["held_out"]["correct"] > 300


def test_a_batch_that_processes_can_not_share_is_refused(tiny, tmp_path):
    words = ["--plugin-dir", str(tiny), "--batch-size", "63", "--out", str(tmp_path / "run")]
    done = subprocess.run([*TORCHRUN, "tiny", *words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--batch-size 63 can't be shared by 2 processes" in done.stderr


def test_ctrl_c_keeps_the_last_whole_epoch_and_it_resumes(tiny, tmp_path):
    out = tmp_path / "run"
    command = [Path(sys.executable).with_name("qzoo"), "train", "tiny", "--plugin-dir", tiny, "--out", out, "-v"]
    with subprocess.Popen([*map(str, command), "--epochs", "50"], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "epoch 3/" in line:
                process.send_signal(signal.SIGINT)
                break
        process.communicate()
    assert process.returncode == 130
    done = len(json.loads((out / "history.json").read_text()))
    assert 2 <= done < 50
    assert not list(out.glob(".tmp-*"))
    state = load_file(out / "checkpoint.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["resnet21"], 2, "did you mean resnet20"),
        (["tiny", "--data", "nowhere/"], 3, "--data nowhere/"),
        (["tiny", "--resume", "nothing-here"], 2, "--resume nothing-here: there is no checkpoint"),
        (["tiny", "--lr", "0"], 2, "the learning rate must be above 0, got 0.0"),
        (["tiny", "--qat", "--weights", "none.safetensors"], 3, "there is no file none.safetensors"),
        (["tiny", "--learn-amax"], 2, "--learn-amax trains quantizers' ranges, which only --qat has"),
        (["tiny", "--device", "cuda"], 2, "PyTorch finds no CUDA GPU here"),
        (["tiny", "--validation", "1.5"], 2, "--validation 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(qzoo, tiny, words, code, says):
    if torch.cuda.is_available() and "cuda" in words:
        pytest.skip("this machine has a GPU")
    ended = qzoo("train", *words, "--plugin-dir", tiny)
    assert ended.code == code
    assert says in ended.err
    assert ended.out == ""
