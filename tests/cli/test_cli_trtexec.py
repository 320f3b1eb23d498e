"""`qzoo trtexec`, in the words that people have for trtexec."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest

from qzoo.cli.trtexec import _shapes
from qzoo.errors import UsageError
from qzoo.records import PlanRecord, decode, file_digest

SMALL = """<ir_version: 8, opset_import: ["" : 13]>
g (float[N,3,8,8] x) => (float[N,4,8,8] y) { c = Conv <pads = [1,1,1,1]> (x, w)\n y = Relu (c) }"""


@pytest.fixture
def here(tmp_path, monkeypatch, registry):
    """A folder to work in, with small.onnx: one convolution, opset 13, a dynamic batch."""
    probe = registry.backend("tensorrt-rtx").probe()
    if not probe.builds:
        pytest.skip(f"tensorrt-rtx: {probe.reason}")
    if probe.works:
        pytest.skip("there is a GPU here: these tests are of what is done without one")
    model = onnx.parser.parse_model(SMALL)
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    for node in model.graph.node:
        node.name = f"make_{node.output[0]}"
    onnx.save(model, tmp_path / "small.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LINE = ("--onnx=small.onnx", "--saveEngine=small.trt", "--gpu=sm89")


def test_the_line_that_people_wrote_for_tensorrt_8_builds_and_says_what_takes_a_gpu(qzoo, here, bundles):
    shutil.copy(bundles["onnxruntime"].path / "portable.onnx", "q.onnx")
    line = "--onnx=q.onnx --saveEngine=q.trt --workspace=100 --verbose=True --exportProfile=q.json"
    ended = qzoo("trtexec", *line.split())
    assert ended.code == 0
    assert "convolutions in INT8: 21 of 21" in ended.out
    assert "--exportProfile: q.json was not written, as it takes a GPU to time the engine: no CUDA GPU" in ended.err
    assert "Engine generation completed" in ended.err  # --verbose: the builder's own log
    record = decode((here / "q.trt.json").read_bytes(), PlanRecord)
    assert record.config["workspace_mib"] == "100.0"
    assert sorted(path.name for path in here.glob("q.*")) == ["q.onnx", "q.trt", "q.trt.json"]


def test_the_sidecar_says_what_the_engine_is(qzoo, here):
    shapes = ("--minShapes=x:1x3x8x8", "--optShapes", "x:4x3x8x8", "--maxShapes=x:8x3x8x8")
    assert qzoo("trtexec", *LINE, *shapes).code == 0
    record = decode((here / "small.trt.json").read_bytes(), PlanRecord)
    assert record.sha256 == file_digest(here / "small.trt")
    assert record.graph_sha256 == file_digest(here / "small.onnx")
    assert record.size_bytes == (here / "small.trt").stat().st_size
    assert str(record.target) == "tensorrt-rtx/sm89"
    assert record.profiles == {"x": ((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))}
    assert record.layers.coverage("Conv") == (0, 1)


@pytest.mark.parametrize("words", [("--fp16",), ("--best",), ("--fp16=True", "--stronglyTyped"), ("--fp16", "true")])
def test_older_precision_flags_convert_the_graph_and_say_so(qzoo, here, words):
    ended = qzoo("trtexec", *LINE, *words)
    assert ended.code == 0
    assert "the graph was converted to fp16" in ended.err
    record = decode((here / "small.trt.json").read_bytes(), PlanRecord)
    assert {one.dtype for one in record.layers.operators} == {"Half"}
    assert record.graph_sha256 != file_digest(here / "small.onnx")


def test_any_graph_is_converted_also_one_that_no_plugin_made(qzoo, here):
    model = onnx.load("small.onnx")
    names = ("s", "b", "m", "v")
    model.graph.node[1].CopyFrom(onnx.helper.make_node("BatchNormalization", ["c", *names], ["y"], name="norm"))
    for name in names:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(4, 1e-6, np.float32), name))
    onnx.save(model, "small.onnx")
    assert qzoo("trtexec", *LINE, "--fp16").code == 0
    record = decode((here / "small.trt.json").read_bytes(), PlanRecord)
    assert {one.dtype for one in record.layers.operators} == {"Half"}


def test_a_flag_that_is_given_as_false_is_not_given(qzoo, here):
    assert "converted" not in qzoo("trtexec", *LINE, "--fp16=False", "--verbose=0").err


def test_int8_of_a_graph_without_quantizers_is_refused_with_a_way_out(qzoo, here):
    ended = qzoo("trtexec", *LINE, "--int8")
    assert (ended.code, ended.out) == (4, "")
    assert "--int8: the graph has no QuantizeLinear" in ended.err
    assert "qzoo export" in ended.err
    assert not (here / "small.trt").exists()


def test_layers_are_written_and_json_says_which_files_there_are(qzoo, here):
    ended = qzoo("trtexec", *LINE, "--exportLayerInfo", "layers.json", "--exportTimes=t.json", "--json", "-q")
    found = ended.json
    assert found["files"] == {"saveEngine": "small.trt", "exportLayerInfo": "layers.json"}
    assert (found["int8_convolutions"], found["convolutions"], found["latency_ms"]) == (0, 1, None)
    assert any(notice.startswith("--exportTimes: t.json was not written") for notice in found["notices"])
    assert any(layer["Name"].startswith("make_c") for layer in json.loads((here / "layers.json").read_text())["Layers"])
    assert not (here / "t.json").exists()


def test_skip_inference_leaves_nothing_to_say_about_it(qzoo, here):
    assert "inference was skipped" in qzoo("trtexec", *LINE).err
    assert "inference was skipped" not in qzoo("trtexec", *LINE, "--skipInference").err


def test_without_gpu_it_is_built_for_every_architecture(qzoo, here):
    found = qzoo("trtexec", "--onnx", "small.onnx", "--saveEngine", "e.trt", "--json", "-q").json
    assert found["target"] == "tensorrt-rtx/sm80+sm86+sm89+sm120+sm121"


def test_a_dynamic_input_without_a_shape_is_1_and_that_is_said(qzoo, here):
    assert "input x is dynamic and no shape was given: 1x3x8x8 is taken" in qzoo("trtexec", *LINE).err


def test_words_without_an_effect_are_named(qzoo, here):
    err = qzoo("trtexec", *LINE, "--avgRuns=10", "--useSpinWait", "--noDataTransfers").err
    for word in ("avgRuns", "useSpinWait", "noDataTransfers"):
        assert f"--{word} has no effect here" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "give --onnx or --loadEngine, and not both"),
        (("--onnx=small.onnx", "--loadEngine=e.trt"), 2, "not both"),
        (("--onnx=small.onnx",), 4, "nothing to keep: timing needs a GPU"),
        (("--onnx=none.onnx", "--saveEngine=e.trt"), 2, "--onnx none.onnx can't be read: No such file"),
        (("--loadEngine=small.onnx",), 2, "no small.onnx.json beside it"),
        ((*LINE, "--optShapes=1x3x8x8"), 2, "--optShapes=1x3x8x8: write NAME:DIMS"),
        ((*LINE, "--optShapes=image:1x3x8x8"), 2, "the profile names input 'image', which the graph doesn't have (x)"),
        ((*LINE, "--minShapes=x:9x3x8x8", "--optShapes=x:4x3x8x8"), 2, "a profile needs min <= opt <= max"),
        ((*LINE, "--optShapes=x:1x3x8x9"), 2, "isn't one"),
        ((*LINE, "--memPoolSize=dlaSRAM:1"), 2, "write workspace:SIZE"),
        ((*LINE, "--memPoolSize=workspace:1B"), 4, "workspace"),
        ((*LINE, "--versionCompatible"), 4, "full TensorRT's"),
        ((*LINE, "--hardwareCompatibilityLevel=ampere+"), 4, "full TensorRT's"),
        ((*LINE, "--fp16=maybe"), 2, "--fp16 is a flag"),
        ((*LINE, "--saveEngin=e.trt"), 2, "No such option"),
        ((*LINE, "--gpu=sm90"), 2, "unknown GPU architecture"),
        ((*LINE, "--exportLayerInfo=l.json", "--profilingVerbosity=none"), 2, "--profilingVerbosity=detailed only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_words_that_do_not_fit_are_refused(qzoo, here, words, code, says):
    ended = qzoo("trtexec", *words)
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err
    assert "Traceback" not in ended.err


def test_a_changed_engine_is_refused_before_it_is_loaded(qzoo, here):
    qzoo("trtexec", *LINE)
    engine = here / "small.trt"
    assert qzoo("trtexec", "--loadEngine=small.trt").code == 4  # whole, and no GPU
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)
    ended = qzoo("trtexec", "--loadEngine=small.trt")
    assert ended.code == 6
    assert "small.trt was changed" in ended.err


def test_an_engine_that_was_not_built_here_is_loaded_only_if_that_is_allowed(qzoo, here, monkeypatch, tmp_path):
    qzoo("trtexec", *LINE)
    monkeypatch.setenv("QZOO_HOME", str(tmp_path / "another"))
    ended = qzoo("trtexec", "--loadEngine=small.trt")
    assert (ended.code, ended.out) == (6, "")
    assert "small.trt is not loaded: it was not built here" in ended.err
    assert qzoo("trtexec", "--loadEngine=small.trt", "--allow-untrusted").code == 4  # no GPU


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("x:1x3", {"x": (1, 3)}),
        ("x:1x3,y:8", {"x": (1, 3), "y": (8,)}),
        ("a:0:1x3", {"a:0": (1, 3)}),
        ("'x':2", {"x": (2,)}),
        ("x:scalar", {"x": ()}),
        (None, {}),
    ],
)
def test_shapes_are_read_as_trtexec_reads_them(text, shapes):
    assert _shapes("--shapes", text) == shapes


@pytest.mark.parametrize("text", ["x", "x:", "x:1x", "x:-1x3", ":1x3", "x:axb"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(UsageError, match="write NAME:DIMS"):
        _shapes("--shapes", text)
