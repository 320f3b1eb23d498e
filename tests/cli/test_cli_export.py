"""qzoo export: the graphs are plain, valid ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto


def quantizers(path: Path) -> tuple[set[int], set[int]]:
    """The element types that a graph's Q/DQ nodes produce or read: of activations, and of stored weights."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    stored = {one.name: one for one in model.graph.initializer}
    activations = {stored[node.input[2]].data_type for node in model.graph.node if node.op_type == "QuantizeLinear"}
    weights = {
        stored[node.input[0]].data_type
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
    return activations, weights


def test_the_portable_graph_is_valid_and_int8_throughout(qzoo, built, tmp_path, bundles):
    ended = qzoo("export", "resnet20", "-o", tmp_path / "out.onnx", "--target", "onnxruntime")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{tmp_path / 'out.onnx'}: portable graph of resnet20, int8, ")
    assert quantizers(tmp_path / "out.onnx") == ({TensorProto.INT8}, {TensorProto.INT8})
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert all(array.min() >= -127 for array in stored.values() if array.dtype == np.int8)
    assert (tmp_path / "out.onnx").read_bytes() == (bundles["onnxruntime"].path / "portable.onnx").read_bytes()


@pytest.mark.parametrize(
    ("target", "weights"),
    [("onnxruntime", {TensorProto.INT8, TensorProto.INT32}), ("openvino", {TensorProto.INT8})],
)
def test_the_lowered_graph_is_valid_with_uint8_activations(qzoo, built, bundles, tmp_path, target, weights):
    ended = qzoo("export", "resnet20", "-o", tmp_path / "out.onnx", "--form", "lowered", "--target", target)
    assert ended.code == 0
    assert quantizers(tmp_path / "out.onnx") == ({TensorProto.UINT8}, weights)
    assert (tmp_path / "out.onnx").read_bytes() == (bundles[target].path / "lowered.onnx").read_bytes()


def test_a_float_graph_has_no_integers_and_gives_the_networks_own_outputs(qzoo, tmp_path):
    import torch
    from safetensors.torch import load_file

    from qzoo.weights import shipped_dir
    from qzoo_resnet.model import resnet20

    qzoo("export", "resnet20", "-o", tmp_path / "float.onnx", "--precision", "fp32")
    assert quantizers(tmp_path / "float.onnx") == (set(), set())
    network = resnet20(10).eval()
    network.load_state_dict(load_file(shipped_dir() / "resnet20-digits.safetensors"))
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    reference = onnx.reference.ReferenceEvaluator(str(tmp_path / "float.onnx"))
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(reference.run(None, {"input": images})[0], expected, rtol=1e-3, atol=1e-3)


def test_without_an_output_path_it_ends_with_2(qzoo):
    ended = qzoo("export", "resnet20")
    assert ended.code == 2
    assert "Missing option '-o' / '--output'" in ended.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["resnet21"], 2),
        (["resnet20", "--weights", "nowhere.pth"], 3),
        (["resnet20", "--target", "onnxruntime", "--fp16"], 4),
        (["resnet20", "--form", "lowred"], 2),
    ],
)
def test_a_failure_leaves_nothing_at_the_output_path(qzoo, tmp_path, words, code):
    ended = qzoo("export", *words, "-o", tmp_path / "out" / "graph.onnx")
    assert (ended.code, ended.out) == (code, "")
    assert not (tmp_path / "out").exists()


def test_a_failure_keeps_the_file_that_was_there(qzoo, tmp_path):
    (tmp_path / "graph.onnx").write_bytes(b"older")
    assert qzoo("export", "resnet20", "--fp16", "--target", "onnxruntime", "-o", tmp_path / "graph.onnx").code == 4
    assert (tmp_path / "graph.onnx").read_bytes() == b"older"


def test_a_directory_as_output_is_refused_and_stays(qzoo, tmp_path):
    ended = qzoo("export", "resnet20", "-o", tmp_path)
    assert ended.code == 2
    assert "is a directory" in ended.err


def test_ranges_lie_beside_a_graph_without_quantizers(qzoo, built, bundles, tmp_path):
    words = ("--target", "onnxruntime", "--form", "ranges", "--trt-version", "7103")
    ended = qzoo("export", "resnet20", "-o", tmp_path / "out.onnx", *words)
    assert (ended.code, ended.err) == (0, "")
    assert {path.name for path in tmp_path.glob("out*")} == {"out.onnx", "out.ranges.json", "out.calib"}
    assert quantizers(tmp_path / "out.onnx") == (set(), set())
    ranges = json.loads((tmp_path / "out.ranges.json").read_text())
    portable = onnx.load(bundles["onnxruntime"].path / "portable.onnx").graph
    assert ranges["ranges"].keys() == {node.input[0] for node in portable.node if node.op_type == "QuantizeLinear"}
    header, *lines = (tmp_path / "out.calib").read_text().splitlines()
    assert header == "TRT-7103-EntropyCalibration2"
    assert len(lines) == len(ranges["ranges"]) + len(ranges["derived"])


def test_ranges_of_a_float_network_are_refused(qzoo, tmp_path):
    words = ("--target", "onnxruntime", "--form", "ranges", "--precision", "fp32")
    ended = qzoo("export", "resnet20", "-o", tmp_path / "out.onnx", *words)
    assert (ended.code, ended.out) == (2, "")
    assert "--form ranges needs an INT8 precision: fp32 has no ranges" in ended.err
    assert not list(tmp_path.glob("out*"))
