"""The main job, on resnet20 and the real digits."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.datasets import load_digits

import qzoo
from qzoo.data.digits import Digits
from qzoo.data.preprocess import apply
from qzoo.errors import AccuracyGateError
from qzoo.pipeline import Options, build_all, export_graph, make_plan
from qzoo.store import Store

CPU_RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(params=CPU_RUNTIMES)
def bundle(request, bundles):
    return bundles[request.param]


def unoptimized(graph: bytes | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph if isinstance(graph, bytes) else str(graph), options)


@pytest.fixture(scope="module")
def held_out(bundles):
    """Every held-out digit, preprocessed from scikit-learn's own arrays, with its label."""
    dataset, preprocess = Digits(), bundles["onnxruntime"].record.preprocess
    samples = dataset.samples("held-out")
    images = np.stack([apply(preprocess, dataset.image(sample)) for sample in samples])
    truth = load_digits().target
    return images, np.array([truth[int(sample.id.rpartition("/")[2])] for sample in samples])


def test_the_engine_itself_scores_what_the_measurement_says(bundle, built_home, held_out):
    images, labels = held_out
    engine = qzoo.load(bundle.path, store=Store(built_home))
    logits = np.concatenate([engine(images[i : i + 60]) for i in range(0, 360, 60)])
    measured = bundle.measurement.accuracy["engine"]
    assert (int((logits.argmax(1) == labels).sum()), len(labels)) == (measured.correct, measured.total)


def test_float_accuracy_is_at_least_355_and_int8_at_most_2_fewer(bundle):
    accuracy = bundle.measurement.accuracy
    assert accuracy["float"].total == 360
    assert accuracy["float"].correct >= 355
    assert accuracy["engine"].correct >= accuracy["float"].correct - 2


@pytest.mark.parametrize(("runtime", "limit"), [("onnxruntime", 0.30), ("openvino", 0.45)])
def test_the_engine_is_small_against_the_runtimes_float_engine(bundles, runtime, limit):
    size = bundles[runtime].measurement.size_bytes
    assert size["engine"] == bundles[runtime].engine.stat().st_size
    assert size["engine"] <= limit * size["float"]


def test_the_portable_graph_decides_as_the_fake_quantized_network_on_every_held_out_image(bundle):
    assert bundle.measurement.export_fidelity.sqnr_db >= 45
    assert bundle.measurement.export_fidelity.top1_agreement == 1
    assert bundle.measurement.export_fidelity.samples == 360


def test_without_labels_the_portable_graph_is_compared_on_16_of_the_64_held_out_images(registry, tmp_path):
    options = Options(model="resnet20", target="onnxruntime", data="photos", calib_samples=16)
    store = Store(tmp_path)
    (built,) = build_all([make_plan(options, registry, tmp_path / "cache")], store)
    assert built.measurement.fidelity.samples == 64
    assert built.measurement.export_fidelity.samples == 16
    assert built.measurement.export_fidelity.sqnr_db >= 35


def test_the_engine_stays_within_35_db_of_its_lowered_graph(bundle, built_home, held_out):
    images, _ = held_out
    reference = unoptimized(bundle.path / "lowered.onnx").run(None, {"input": images})[0].astype(np.float64)
    engine = qzoo.load(bundle.path, store=Store(built_home))
    logits = np.concatenate([engine(images[i : i + 60]) for i in range(0, 360, 60)]).astype(np.float64)
    signal, noise = reference - reference.mean(0), (reference - reference.mean(0)) - (logits - logits.mean(0))
    assert 10 * np.log10((signal**2).sum() / (noise**2).sum()) >= 35
    assert (reference.argmax(1) == logits.argmax(1)).mean() >= 0.995


def test_lowering_costs_at_most_half_a_db(bundle):
    assert bundle.measurement.lowering_cost_db <= 0.5


def test_every_digest_in_the_manifest_is_that_of_the_file(bundle):
    for name, entry in bundle.manifest.files.items():
        assert hashlib.sha256((bundle.path / name).read_bytes()).hexdigest() == entry.sha256
    assert {path.name for path in bundle.path.iterdir()} == {
        *bundle.manifest.files,
        "manifest.json",
        "measurement.json",
    }


def test_the_onnxruntime_engine_is_the_lowered_graph(bundles):
    bundle = bundles["onnxruntime"]
    assert bundle.engine.read_bytes() == (bundle.path / "lowered.onnx").read_bytes()


def test_calibration_runs_once_for_all_targets(bundles):
    tables = {(bundles[runtime].path / "calibration.json").read_bytes() for runtime in CPU_RUNTIMES}
    graphs = {(bundles[runtime].path / "portable.onnx").read_bytes() for runtime in CPU_RUNTIMES}
    assert len(tables) == len(graphs) == 1


def test_the_calibration_table_names_every_quantizer_and_the_sample_list(bundles):
    bundle = bundles["onnxruntime"]
    table = json.loads((bundle.path / "calibration.json").read_text())
    graph = onnx.load(bundle.path / "portable.onnx").graph
    modules = {
        path
        for node in graph.node
        for entry in node.metadata_props
        if entry.key == "qzoo.module"
        for path in entry.value.split(",")
    }
    assert modules == set(table["ranges"])
    assert table["sample_list_sha256"] == bundle.manifest.inputs.sample_list_sha256
    assert table["samples"] == 64
    assert table["ranges"]["layer1.0.add.skip_quantizer"]["role"] == "skip"
    assert {r["method"] for r in table["ranges"].values() if r["role"] == "weight"} == {"max"}


def test_an_identical_build_is_served_from_the_store(bundles, built_home, registry):
    store = Store(built_home)
    plan = make_plan(Options(model="resnet20", target="openvino"), registry, store.home / "cache")
    before = (bundles["openvino"].path / "measurement.json").stat().st_mtime_ns
    (again,) = build_all([plan], store)
    assert again.path == bundles["openvino"].path
    assert (again.path / "measurement.json").stat().st_mtime_ns == before


def test_two_builds_in_two_processes_and_homes_give_the_same_bytes(bundles, tmp_path):
    code = "import qzoo, sys; print(qzoo.build('resnet20', target=sys.argv[1]).path)"
    for runtime in CPU_RUNTIMES:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, runtime],
            check=True,
            capture_output=True,
            text=True,
            env={**_environment(), "QZOO_HOME": str(tmp_path / runtime)},
        )
        other = Path(done.stdout.strip())
        for name in sorted(path.name for path in other.iterdir()):
            if name != "measurement.json":
                assert (other / name).read_bytes() == (bundles[runtime].path / name).read_bytes(), name


def _environment() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}


def test_the_accuracy_gate_refuses_an_engine_and_names_the_worst_layers(tmp_path, registry):
    # a percentile of 30 clips most of every activation
    options = Options(model="resnet20", target="onnxruntime", calibrator="percentile:30", max_drop=1.0)
    store = Store(tmp_path)
    with pytest.raises(AccuracyGateError, match=r"points .*worst SQNR: \S+ -?\d") as raised:
        build_all([make_plan(options, registry, tmp_path / "cache")], store)
    assert raised.value.exit_code == 5
    assert store.list() == []


def test_automatic_placement_leaves_the_residual_add_unquantized(registry, tmp_path):
    def add_inputs(placement: str) -> set[str]:
        options = Options(model="resnet20", target="onnxruntime", placement=placement)
        graph = onnx.load_from_string(export_graph(make_plan(options, registry, tmp_path), "portable")).graph
        producers = {output: node.op_type for node in graph.node for output in node.output}
        return {producers[name] for node in graph.node if node.op_type == "Add" for name in node.input}

    assert add_inputs("manual") == {"DequantizeLinear"}
    assert "DequantizeLinear" not in add_inputs("auto")


def test_a_float_build_has_no_quantizers(tmp_path, registry):
    plan = make_plan(Options(model="resnet20", precision="fp32", target="onnxruntime"), registry, tmp_path)
    (bundle,) = build_all([plan], Store(tmp_path))
    operators = {node.op_type for node in onnx.load(bundle.engine).graph.node}
    assert operators.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    assert bundle.measurement.accuracy["engine"] == bundle.measurement.accuracy["float"]


def test_per_tensor_weights_by_recipe_have_one_scale_each(registry, tmp_path):
    from dataclasses import replace

    from qzoo.pipeline.prepare import prepare
    from qzoo.pipeline.progress import Silent

    plan = make_plan(Options(model="resnet20", target="onnxruntime"), registry, tmp_path)
    prepared = prepare(replace(plan, recipe=replace(plan.recipe, per_channel=False)), Silent())
    assert {len(r.amax) for r in prepared.table.ranges.values() if r.role == "weight"} == {1}


def test_a_weights_file_with_seven_classes_and_a_module_prefix_is_used(tmp_path, registry):
    import torch
    from safetensors.torch import save_file

    from qzoo_resnet.model import resnet20

    torch.manual_seed(0)
    state = {f"module.{key}": value for key, value in resnet20(7).state_dict().items()}
    path = tmp_path / "finetuned.safetensors"
    save_file(state, path)
    options = Options(model="resnet20", target="onnxruntime", weights=str(path), data="photos")
    plan = make_plan(options, registry, tmp_path)
    graph = onnx.load_from_string(export_graph(plan, "lowered")).graph
    assert plan.weights.record.num_classes == 7
    assert graph.output[0].type.tensor_type.shape.dim[1].dim_value == 7
