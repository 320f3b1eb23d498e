"""ONNX from elsewhere is all in its own bytes, whatever part of it would lead out."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qzoo.errors import IntegrityError
from qzoo.graph.contained import check_contained


def model(*nodes: onnx.NodeProto, initializers=(), functions=(), domains=("",)) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        nodes or [helper.make_node("Relu", ["x"], ["y"])],
        "graph",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        initializer=list(initializers),
    )
    opsets = [helper.make_opsetid(domain, 1 if domain else 17) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def outside(location: str = "../../etc/passwd") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(tensor: TensorProto) -> onnx.NodeProto:
    """An If, two graphs deep."""
    inner = helper.make_graph([constant(tensor)], "inner", [], [])
    middle = helper.make_graph([helper.make_node("If", ["x"], ["i"], then_branch=inner)], "middle", [], [])
    return helper.make_node("If", ["x"], ["y"], then_branch=middle)


def sparse(tensor: TensorProto) -> onnx.NodeProto:
    value = onnx.SparseTensorProto(values=tensor, dims=[1])
    return helper.make_node("Constant", [], ["c"], sparse_value=value)


def in_function(tensor: TensorProto) -> onnx.FunctionProto:
    return helper.make_function("own", "f", [], ["c"], [constant(tensor)], [helper.make_opsetid("", 17)])


CASES = {
    "initializer": lambda: model(initializers=[outside()]),
    "absolute": lambda: model(initializers=[outside("/etc/passwd")]),
    "beside it": lambda: model(initializers=[outside("weights.bin")]),
    "constant": lambda: model(constant(outside())),
    "subgraph": lambda: model(branch(outside())),
    "sparse": lambda: model(sparse(outside())),
    "function": lambda: model(functions=[in_function(outside())]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_tensor_in_another_file_is_refused_wherever_it_stands(name):
    with pytest.raises(IntegrityError, match=r"keeps the tensor 'w' in another file") as raised:
        check_contained(CASES[name]().SerializeToString(), Path("evil.onnx"))
    assert "evil.onnx" in str(raised.value)
    assert raised.value.exit_code == 6


def test_a_place_without_the_flag_and_a_flag_without_the_place_are_refused_too():
    flagged = numpy_helper.from_array(np.ones(1, np.float32), "w")
    flagged.data_location = TensorProto.EXTERNAL
    placed = numpy_helper.from_array(np.ones(1, np.float32), "w")
    placed.external_data.add(key="location", value="x")
    for tensor in (flagged, placed):
        with pytest.raises(IntegrityError, match="in another file"):
            check_contained(model(initializers=[tensor]).SerializeToString(), Path("evil.onnx"))


@pytest.mark.parametrize("deep", [False, True])
def test_a_custom_operator_is_refused_and_named(deep):
    custom = helper.make_node("Backdoor", ["x"], ["y"], domain="evil.ops")
    node = custom
    if deep:
        node = helper.make_node("If", ["x"], ["y"], then_branch=helper.make_graph([custom], "inner", [], []))
    with pytest.raises(IntegrityError, match=r"uses Backdoor of 'evil\.ops'"):
        check_contained(model(node, domains=("", "evil.ops")).SerializeToString(), Path("evil.onnx"))


def test_a_function_that_the_model_itself_defines_is_no_custom_operator():
    function = helper.make_function(
        "own", "f", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    given = model(helper.make_node("f", ["x"], ["y"], domain="own"), functions=[function], domains=("", "own"))
    assert check_contained(given.SerializeToString(), Path("good.onnx")) == given


def test_a_model_that_is_all_there_is_returned_as_it_is(bundles):
    data = (bundles["onnxruntime"].path / "portable.onnx").read_bytes()
    assert check_contained(data, Path("portable.onnx")).SerializeToString() == data


class Payload:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_or_an_archive_is_no_model_and_is_not_opened(tmp_path):
    pickled = pickle.dumps(Payload(tmp_path / "ran"))
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("../escaped", b"x")
    for data in (pickled, (tmp_path / "archive").read_bytes(), b"\xff" * 100):
        with pytest.raises(IntegrityError, match=r"evil\.onnx is no ONNX model"):
            check_contained(data, Path("evil.onnx"))
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}
