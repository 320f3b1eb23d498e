"""timm's pretrained weights, fetched by timm itself from a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save
from timm_hub import hub

from qzoo import weights
from qzoo.errors import IntegrityError, SpecError, WeightsUnavailable
from qzoo.records import file_digest
from qzoo.spec import ModelSpec, WeightSource
from qzoo.weights import timm_hub
from qzoo_timm.spec import resolve

NAME = "test_vit.r160_in1k"
REPOSITORY = "timm/test_vit.r160_in1k"
PLAN = """
import json, sys
from pathlib import Path
from time import perf_counter
from qzoo import weights
from qzoo.errors import QzooError
from qzoo_timm.spec import resolve
began = perf_counter()
try:
    plan = weights.plan(resolve(sys.argv[1]), "auto", 0, Path(sys.argv[2]))
    said = {"path": str(plan.path), "kind": plan.record.kind, "ref": plan.record.ref, "sha256": plan.record.sha256,
            "classes": plan.record.num_classes}
except QzooError as error:
    said = {"error": type(error).__name__, "text": str(error)}
print(json.dumps(said | {"seconds": perf_counter() - began}))
"""


def planned(name: str, cache: Path, endpoint: str, **environment: str) -> dict[str, object]:
    """What planning says in a new process: the hub's client reads its address when it is imported."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAN, name, str(cache)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache / "hf"), **environment},
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model("test_vit").state_dict()


def test_timm_fetches_and_converts_them_once(trained, tmp_path: Path):
    # as old checkpoints have it, which timm's filter for this network makes a convolution's
    stored = {**trained, "patch_embed.proj.weight": trained["patch_embed.proj.weight"].flatten(1)}
    with hub(REPOSITORY, "model.safetensors", save(stored)) as (endpoint, seen):
        first = planned(NAME, tmp_path, endpoint)
        asked = len(seen)
        second = planned(NAME, tmp_path, endpoint)
        assert len(seen) == asked
    path = Path(str(first["path"]))
    assert (first["kind"], first["ref"], first["classes"]) == ("hub", NAME, 1000)
    assert first["sha256"] == file_digest(path)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    loaded = load_file(path)
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(loaded[key], trained[key]) for key in trained)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith((".timm", "timm-"))] == [path.name]


@pytest.mark.parametrize("how", ["unreachable", "without the file", "offline"])
def test_a_hub_that_does_not_give_them_names_three_ways_out_quickly(tmp_path: Path, how: str):
    with hub(REPOSITORY, "other.bin", b"") as (endpoint, _):
        address = "http://127.0.0.1:9" if how == "unreachable" else endpoint
        found = planned(NAME, tmp_path, address, **({"HF_HUB_OFFLINE": "1"} if how == "offline" else {}))
    assert found["error"] == "WeightsUnavailable"
    for way in ("--weights PATH", "--weights random", "connect to the network and retry"):
        assert way in str(found["text"])
    assert float(str(found["seconds"])) < 60
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_local_file_is_taken_as_it_is(trained, tmp_path: Path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(save(trained))
    plan = weights.plan(resolve(NAME), str(path), 0, tmp_path)
    assert (plan.record.kind, plan.record.ref, plan.record.num_classes) == ("file", "mine.safetensors", 1000)


def test_a_changed_file_in_the_cache_is_refused(tmp_path: Path):
    (tmp_path / f"timm-{NAME}-0123456789abcdef.safetensors").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match="delete it to fetch it again"):
        timm_hub.kept(NAME, tmp_path)


def test_a_network_that_timm_does_not_have_is_a_spec_error(tmp_path: Path):
    with pytest.raises(SpecError, match=r"timm has no pretrained network 'test_vit\.nothing'"):
        timm_hub.fetch("test_vit.nothing", tmp_path, "")


def test_a_source_without_weights_says_so(tmp_path: Path):
    spec: ModelSpec = resolve("test_maxvit")
    assert all(isinstance(source, WeightSource) for source in spec.weights)
    if not spec.weights:
        with pytest.raises(WeightsUnavailable, match="none of timm/test_maxvit are at hand"):
            weights.plan(spec, "auto", 0, tmp_path)
