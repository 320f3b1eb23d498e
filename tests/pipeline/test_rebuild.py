"""From a bundle's portable graph to an engine for this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import qzoo
from qzoo.data.digits import Digits
from qzoo.data.preprocess import apply
from qzoo.data.sampler import choose
from qzoo.errors import IntegrityError
from qzoo.pipeline import rebuild
from qzoo.pipeline.plan import UNLABELLED_HELD_OUT
from qzoo.records import FileEntry, digest_of
from qzoo.store import Bundle, Reference, Store

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(params=RUNTIMES)
def bundle(request, bundles) -> Bundle:
    return bundles[request.param]


@pytest.fixture
def elsewhere(bundle, tmp_path) -> Bundle:
    """The bundle as somebody else gets it: a directory, in no store."""
    return Bundle.open(shutil.copytree(bundle.path, tmp_path / "received"))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "home")


def test_the_bytes_are_the_same_whatever_the_process_compiled_before(bundle, elsewhere, registry, store):
    rebuild(elsewhere, registry, store)
    assert rebuild(elsewhere, registry, store).manifest == bundle.manifest


def test_it_is_verified_and_says_what_it_was_rebuilt_from(bundle, elsewhere, registry, store):
    measured = rebuild(elsewhere, registry, store).measurement
    assert measured.verified == "passed"
    assert measured.engine_fidelity.sqnr_db >= 35
    assert (measured.accuracy, measured.latency) == (None, {})
    assert measured.notes == (f"rebuilt from {bundle.id[:12]}'s portable graph; fidelity is to that graph",)


def test_its_fidelity_is_to_the_portable_graph_in_unoptimized_onnxruntime(bundle, elsewhere, registry, store):
    new = rebuild(elsewhere, registry, store)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(bundle.path / "portable.onnx", options)
    engine, dataset = qzoo.load(new.path, store=store), Digits()
    drawn = choose(dataset, "held-out", UNLABELLED_HELD_OUT, new.manifest.inputs.seed)
    chosen = np.stack([apply(new.record.preprocess, dataset.image(sample)) for sample in drawn])
    expected = session.run(None, {"input": chosen})[0].astype(np.float64)
    found = np.concatenate([engine(chosen[i : i + 16]) for i in range(0, len(chosen), 16)]).astype(np.float64)
    signal = expected - expected.mean(0)
    noise = signal - (found - found.mean(0))
    decibels = 10 * np.log10((signal**2).sum() / (noise**2).sum())
    assert new.measurement.fidelity.sqnr_db == pytest.approx(decibels, abs=0.1)


def test_it_is_stored_by_the_reference_that_it_was_asked_for_by(elsewhere, registry, store):
    new = rebuild(elsewhere, registry, store, under=Reference.parse("mine:v2"))
    assert [name for name, _ in store.list()] == ["mine:v2"]
    assert store.resolve(Reference.parse("mine:v2")) == new


def test_the_bundle_it_came_from_is_left_as_it_was(elsewhere, registry, store):
    before = {path.name: path.read_bytes() for path in elsewhere.path.iterdir()}
    rebuild(elsewhere, registry, store)
    assert {path.name: path.read_bytes() for path in elsewhere.path.iterdir()} == before


@pytest.mark.parametrize("name", ["portable.onnx", "lowered.onnx", "calibration.json"])
def test_a_bundle_with_a_changed_file_is_not_rebuilt(elsewhere, registry, store, name):
    path = elsewhere.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"{name} was changed") as raised:
        rebuild(elsewhere, registry, store)
    assert raised.value.exit_code == 6
    assert store.list() == []


def test_data_that_is_not_known_here_is_replaced_by_photographs(elsewhere, registry, store):
    received = Bundle(elsewhere.path, replace(elsewhere.manifest, data="the builder's own images"))
    new = rebuild(received, registry, store)
    assert new.measurement.data == "photos"
    assert new.measurement.verified == "passed"
    assert new.measurement.fidelity.top1_agreement is None


REBUILD = """
import json, sys
from pathlib import Path
from qzoo.pipeline import rebuild
from qzoo.registry import Registry
from qzoo.records import FileEntry, digest_of
from qzoo.store import Bundle, Store
new = rebuild(Bundle.open(Path(sys.argv[1])), Registry.load(env={}), Store(Path(sys.argv[2])))
heavy = [name for name in ("torch", "torchvision", "onnxscript", "pytorch_quantization") if name in sys.modules]
print(json.dumps([str(new.path), heavy]))
"""


def rebuilt_in_its_own_process(bundle: Bundle, home: Path, **environment: str) -> tuple[Bundle, list[str]]:
    """The new bundle, and what of torch that process had loaded."""
    done = subprocess.run(
        [sys.executable, "-c", REBUILD, bundle.path, home],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    path, heavy = json.loads(done.stdout)
    return Bundle.open(Path(path)), heavy


def test_on_the_machine_that_built_it_id_and_bytes_are_the_same_and_no_torch_is_loaded(bundle, tmp_path):
    new, heavy = rebuilt_in_its_own_process(bundle, tmp_path)
    assert heavy == []
    assert new.path == tmp_path / "bundles" / bundle.id
    assert new.manifest == bundle.manifest
    assert [name for name, _ in Store(tmp_path).list()] == ["resnet20:int8"]


def test_for_another_instruction_set_it_is_another_bundle_with_weights_that_do_not_saturate(bundles, tmp_path):
    if "vnni" not in bundles["openvino"].record.target.isa:
        pytest.skip("this CPU has no VNNI that could be hidden")
    old = bundles["openvino"]
    new, _ = rebuilt_in_its_own_process(old, tmp_path, ONEDNN_MAX_CPU_ISA="AVX2")
    assert (new.record.target.isa, new.record.target.vnni) == ("avx2", False)
    assert new.id != old.id
    assert replace(new.manifest.inputs, target=old.manifest.inputs.target) == old.manifest.inputs
    assert new.measurement.verified == "passed"
    for kept in ("portable.onnx", "calibration.json"):
        assert (new.path / kept).read_bytes() == (old.path / kept).read_bytes()
    stored = {one.name: one for one in onnx.load(new.path / "lowered.onnx").graph.initializer}
    weights = [onnx.numpy_helper.to_array(one) for one in stored.values() if one.data_type == onnx.TensorProto.INT8]
    assert max(int(np.abs(array.astype(np.int16)).max()) for array in weights) == 63


def test_a_portable_graph_that_would_read_another_file_is_refused_though_its_digest_is_right(
    elsewhere, registry, store, tmp_path
):
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    graph = onnx.load(elsewhere.path / "portable.onnx")
    tensor = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    data = graph.SerializeToString()
    (elsewhere.path / "portable.onnx").unlink()
    (elsewhere.path / "portable.onnx").write_bytes(data)
    entry = FileEntry(sha256=digest_of(data), size_bytes=len(data))
    manifest = replace(elsewhere.manifest, files={**elsewhere.manifest.files, "portable.onnx": entry})
    with pytest.raises(IntegrityError, match=r"in another file \(\.\./secret\)"):
        rebuild(Bundle(elsewhere.path, manifest), registry, store)
    assert store.list() == []
