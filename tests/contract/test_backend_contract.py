"""What every backend must do, run for each one that is registered."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from qzoo.data.digits import Digits
from qzoo.data.preprocess import apply
from qzoo.errors import EngineMismatch, TargetError, TargetUnsupported, UsageError
from qzoo.export import export
from qzoo.pipeline.assemble import Facts, build_engine, serialize
from qzoo.records import encode
from qzoo.registry import Registry
from qzoo.spec import PRECISIONS, BatchProfile, Recipe

MAX_BATCH = 5
NAMES = [backend.name for backend in Registry.load(env={}).backends()]


@pytest.fixture(scope="module", params=NAMES)
def backend(request, registry):
    found = registry.backend(request.param)
    if not found.probe().works:
        pytest.skip(f"{found.name}: {found.probe().reason}")
    return found


@pytest.fixture(scope="module")
def facts(bundles):
    record = next(iter(bundles.values())).record
    return Facts(model="contract", preprocess=record.preprocess, decision=record.decision, labels=record.labels)


@pytest.fixture(scope="module")
def portable(bundles):
    """resnet20's portable graph; the same whatever the target."""
    return ir.load(bundles["onnxruntime"].path / "portable.onnx")


@pytest.fixture(scope="module")
def digits(facts):
    """Held-out digits, (N, 3, 32, 32)."""
    data = Digits()
    return np.stack([apply(facts.preprocess, data.image(sample)) for sample in data.samples("held-out")[:40]])


@pytest.fixture(scope="module")
def float_graph():
    """A small float network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()
    return export(model, "input", (3, 32, 32), ("logits",))


@pytest.fixture(scope="module")
def lowered(backend, portable):
    return backend.lower(portable, Recipe(target=backend.name, precision="int8", roles=backend.roles), backend.target())


@pytest.fixture(scope="module")
def built(backend, lowered, facts, tmp_path_factory):
    """The INT8 engine's file and its record."""
    folder = tmp_path_factory.mktemp(backend.name)
    recipe = Recipe(target=backend.name, precision="int8", batch=BatchProfile(max=MAX_BATCH))
    return build_engine(lowered, recipe, backend, backend.target(), facts, folder)[:2]


@pytest.fixture(scope="module")
def engine(backend, built):
    return backend.load(*built)


def unoptimized(model: ir.Model, images: np.ndarray) -> np.ndarray:
    """The logits of a graph run as it is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(serialize(model), options).run(["logits"], {"input": images})[0]


def run_all(engine, images: np.ndarray) -> np.ndarray:
    batches = [images[i : i + MAX_BATCH] for i in range(0, len(images), MAX_BATCH)]
    return np.concatenate([engine.run({"input": batch})["logits"] for batch in batches])


def decibels(reference: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-noise, each logit's mean taken off both sides."""
    reference, found = (array - array.mean(0, dtype=np.float64) for array in (reference, found))
    return 10 * np.log10((reference**2).sum() / ((reference - found) ** 2).sum())


def usable_float_precisions(backend) -> list[str]:
    return [precision for precision in backend.float_precisions if not refused(backend, precision)]


def refused(backend, precision: str) -> TargetUnsupported | None:
    try:
        backend.check_precision(precision)
    except TargetUnsupported as error:
        return error
    return None


def test_every_runtime_of_the_registry_is_held_to_the_contract():
    assert {"onnxruntime", "openvino"} <= {*NAMES}


def test_probe_names_the_installed_version(backend):
    assert backend.probe().version == version(backend.sdk)


def test_the_target_is_runtime_slash_instruction_set(backend):
    target = backend.target()
    assert str(target) == f"{backend.name}/{target.isa}"
    assert target.isa
    assert target.version == version(backend.sdk)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_is_taken_or_refused_with_a_way_out(backend, precision):
    error = refused(backend, precision)
    if error is None:
        assert all(isinstance(value, str) for item in backend.config(precision).items() for value in item)
    else:
        assert precision not in ("fp32", "int8")
        assert precision.removeprefix("int8+") in str(error)
        assert f"target {backend.name}" in str(error)
        assert "use --precision" in str(error)
        assert error.exit_code == 4


def test_the_int8_engine_computes_what_the_lowered_graph_says(engine, lowered, digits):
    assert decibels(unoptimized(lowered, digits), run_all(engine, digits)) >= 35


def test_lowering_costs_next_to_nothing(portable, lowered, digits):
    assert decibels(unoptimized(portable, digits), unoptimized(lowered, digits)) >= 25


def test_every_weight_fits_seven_bits_where_products_saturate(backend, portable, digits):
    recipe = Recipe(target=backend.name, precision="int8", roles=backend.roles)
    lowered = backend.lower(portable, recipe, replace(backend.target(), vnni=False))
    weights = [value.const_value.numpy() for value in lowered.graph.initializers.values()]
    assert max(np.abs(weight.astype(int)).max() for weight in weights if weight.dtype == np.int8) == 63
    assert decibels(unoptimized(portable, digits), unoptimized(lowered, digits)) >= 15


def test_lowering_leaves_the_portable_graph_as_it_was(backend, portable):
    before = serialize(portable)
    backend.lower(portable, Recipe(target=backend.name, precision="int8", roles=("input", "weight")), backend.target())
    assert serialize(portable) == before


@pytest.mark.parametrize(("precision", "least"), [("fp32", 60), ("bf16", 20), ("fp16", 45)])
def test_a_float_engine_is_as_exact_as_its_precision(backend, float_graph, facts, digits, tmp_path, precision, least):
    if precision not in usable_float_precisions(backend):
        pytest.skip(f"{backend.name} has no {precision} engine here")
    target = backend.target()
    recipe = Recipe(target=backend.name, precision=precision, batch=BatchProfile(max=MAX_BATCH))
    lowered = backend.lower(float_graph, recipe, target)
    path, record, _ = build_engine(lowered, recipe, backend, target, facts, tmp_path)
    assert decibels(unoptimized(float_graph, digits), run_all(backend.load(path, record), digits)) > least


@pytest.mark.parametrize("batch", [1, 2, MAX_BATCH])
def test_every_batch_of_the_profile_runs_and_gives_each_image_its_own_row(engine, digits, batch):
    together = engine.run({"input": digits[:batch]})["logits"]
    assert together.shape == (batch, 10)
    alone = np.concatenate([engine.run({"input": digits[i : i + 1]})["logits"] for i in range(batch)])
    np.testing.assert_allclose(together, alone, atol=0.02 * np.abs(alone).max())


@pytest.mark.parametrize("batch", [0, MAX_BATCH + 1])
def test_a_batch_outside_the_profile_is_refused(engine, batch):
    with pytest.raises(UsageError, match=rf"^input input has a batch of {batch}; the engine takes 1 to {MAX_BATCH}$"):
        engine.run({"input": np.zeros((batch, 3, 32, 32), np.float32)})


@pytest.mark.parametrize("shape", [(1, 3, 32, 31), (3, 32, 32), (1, 1, 32, 32), (1, 3, 32, 32, 1), (32,), ()])
def test_another_shape_is_refused(engine, shape):
    with pytest.raises(UsageError, match=r"input input has shape \(.*\); the engine takes \(N, 3, 32, 32\)"):
        engine.run({"input": np.zeros(shape, np.float32)})


@pytest.mark.parametrize(("names", "got"), [(["image"], "image"), ([], "none"), (["input", "mask"], "input, mask")])
def test_other_inputs_are_refused_by_name(engine, names, got):
    with pytest.raises(UsageError, match=f"^the engine's inputs are input; got {got}$") as error:
        engine.run({name: np.zeros((1, 3, 32, 32), np.float32) for name in names})
    assert error.value.exit_code == 2


def test_outputs_are_float32_by_the_names_of_the_record(engine, digits):
    outputs = engine.run({"input": digits[:2]})
    assert list(outputs) == [info.name for info in engine.record.outputs] == ["logits"]
    assert outputs["logits"].dtype == np.float32


def test_a_second_run_does_not_change_what_the_first_one_gave(engine, digits):
    first = engine.run({"input": digits[:2]})["logits"]
    kept = first.copy()
    second = engine.run({"input": digits[2:4]})["logits"]
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(second, kept)


def test_the_same_input_gives_the_same_output_and_is_not_written_to(engine, digits):
    images = digits[:3].copy()
    first, second = (engine.run({"input": images})["logits"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(images, digits[:3])


def test_arrays_of_another_type_or_layout_are_taken_as_float32(engine, digits):
    plain = engine.run({"input": digits[:2]})["logits"]
    wide = np.asfortranarray(digits[:2].astype(np.float64))
    np.testing.assert_array_equal(engine.run({"input": wide})["logits"], plain)


def test_the_number_of_threads_changes_no_decision(backend, built, engine, digits):
    alone = run_all(backend.load(*built, threads=1), digits)
    np.testing.assert_array_equal(alone.argmax(1), run_all(engine, digits).argmax(1))


BUILD = """
import sys
from pathlib import Path
from qzoo.registry import Registry
name, graph, out = sys.argv[1:]
backend = Registry.load(env={}).backend(name)
backend.build(Path(graph).read_bytes(), backend.config("int8"), Path(out))
"""


def test_another_process_builds_the_same_bytes(backend, lowered, built, tmp_path):
    graph, out = tmp_path / "lowered.onnx", tmp_path / "engine"
    graph.write_bytes(serialize(lowered))
    subprocess.run([sys.executable, "-c", BUILD, backend.name, graph, out], check=True)
    assert sha256(out.read_bytes()).hexdigest() == built[1].sha256


def test_building_again_in_one_process_gives_the_same_bytes(backend, lowered, built, tmp_path):
    out = tmp_path / "engine"
    backend.build(serialize(lowered), backend.config("int8"), out)
    assert sha256(out.read_bytes()).hexdigest() == built[1].sha256


@pytest.mark.parametrize("change", [{"isa": "neon_dotprod"}, {"version": "1.2.3"}])
def test_an_engine_of_another_instruction_set_or_version_is_refused_with_both_named(backend, built, change):
    path, record = built
    here = backend.target()
    elsewhere = replace(here, **change)
    with pytest.raises(EngineMismatch) as error:
        backend.load(path, replace(record, target=elsewhere))
    for target in (here, elsewhere):
        assert f"{target} with {target.runtime} {target.version}" in str(error.value)
    assert "--build" in str(error.value)
    assert error.value.exit_code == 4


LOAD = """
import json, sys
from pathlib import Path
from qzoo.errors import QzooError
from qzoo.records import EngineRecord, decode
from qzoo.registry import Registry
name, record, *engines = sys.argv[1:]
backend, record = Registry.load(env={}).backend(name), decode(Path(record).read_bytes(), EngineRecord)
raised = {}
for engine in engines:
    try:
        backend.load(Path(engine), record)
    except QzooError as error:
        raised[Path(engine).name] = str(error)
print(json.dumps(raised))
"""


def test_a_damaged_engine_file_is_an_error_of_qzoo_and_never_a_crash(backend, built, tmp_path):
    path, record = built
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "garbage": np.random.default_rng(0).bytes(5000),
        "zeros": bytes(len(whole)),
        "half": whole[: len(whole) // 2],
        "head": whole[:100],
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "record.json").write_bytes(encode(record))
    # in a process of its own, where a crash would end only that
    files = [tmp_path / name for name in ("record.json", *damaged)]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, backend.name, *files], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    raised = json.loads(done.stdout)
    assert raised.keys() == damaged.keys()
    for name, message in raised.items():
        assert len(message.removeprefix(f"{backend.name}:").strip()) > 20, name


@pytest.mark.parametrize("kind", ["garbage", "unknown operator", "wrong rank", "missing input"])
def test_an_invalid_graph_is_a_target_error_and_leaves_no_file(backend, tmp_path, kind):
    def graph(operator: str) -> bytes:
        text = f'<ir_version: 10, opset_import: ["" : 18]> g (float[N,2] x) => (float[N,2] y) {{ y = {operator} }}'
        return onnx.parser.parse_model(text).SerializeToString()

    invalid = {
        "garbage": b"no graph at all",
        "unknown operator": graph("Nonsense (x)"),
        "wrong rank": graph("Conv (x, x)"),
        "missing input": graph("Add (x, nowhere)"),
    }[kind]
    out = tmp_path / "engine"
    with pytest.raises(TargetError, match=rf"^{backend.name}") as error:
        backend.build(invalid, backend.config("fp32"), out)
    assert "\n" not in str(error.value)
    assert not out.exists()


MAKE = """
import sys
from qzoo.registry import Registry
backend = Registry.load(env={}).backend(sys.argv[1])
backend.probe(), backend.target(), backend.check_precision("int8"), backend.config("int8")
print(*sys.modules)
"""


def test_making_and_probing_a_backend_imports_no_sdk(backend):
    done = subprocess.run([sys.executable, "-c", MAKE, backend.name], capture_output=True, text=True, check=True)
    sdks = {found.sdk for found in Registry.load(env={}).backends()}
    assert done.stdout.split()
    assert {name.partition(".")[0] for name in done.stdout.split()}.isdisjoint({*sdks, "torch", "onnx", "onnx_ir"})
