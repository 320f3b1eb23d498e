"""A Slice of a stored weight is a stored weight, whatever it slices, and the graph computes the same bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qzoo.graph.edit import remove_dead
from qzoo.graph.slices import store_slices

ROWS, COLUMNS = 7, 5


def graph_of(index: tuple[slice, slice], axis: int | None, *, stored: bool = True) -> ir.Model:
    """x + W[index], where W is stored as int8, with one scale or one per index of an axis, or as float32."""
    random = np.random.default_rng(0)
    weight = random.integers(-127, 128, (ROWS, COLUMNS)).astype(np.int8)
    scale = random.uniform(0.1, 1, () if axis is None else (weight.shape[axis],)).astype(np.float32)
    bounds = [[part.start for part in index], [part.stop for part in index], [0, 1], [part.step for part in index]]
    names = ("starts", "ends", "axes", "steps")
    made = {name: np.asarray(bound, np.int64) for name, bound in zip(names, bounds, strict=True)}
    made |= {"w": weight, "s": scale} if stored else {"w": weight.astype(np.float32)}
    initializers = {name: ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in made.items()}
    nodes, tensor = [], initializers["w"]
    if stored:
        attributes = {} if axis is None else {"axis": axis}
        nodes.append(ir.node("DequantizeLinear", [initializers["w"], initializers["s"]], attributes, name="dequantize"))
        nodes[0].metadata_props.update({"qzoo.role": "weight", "qzoo.module": "w_quantizer"})
        tensor = nodes[0].outputs[0]
    nodes.append(ir.node("Slice", [tensor, *(initializers[name] for name in names)], name="slice"))
    nodes[-1].metadata_props["qzoo.input.0"] = "weight:w_quantizer"
    x = ir.Value(name="x", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes.append(ir.node("Add", [x, nodes[-1].outputs[0]], name="add"))
    output = nodes[-1].outputs[0]
    output.name, output.type = "y", ir.TensorType(ir.DataType.FLOAT)
    output.shape = ir.Shape(np.empty((ROWS, COLUMNS))[index].shape)
    graph = ir.Graph([x], [output], nodes=nodes, initializers=list(initializers.values()), opset_imports={"": 18})
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": np.asarray([0.25], np.float32)})[0]


def bounds(size: int) -> st.SearchStrategy[slice]:
    """Slices that aren't empty, also from the end and beyond it."""
    starts = st.integers(0, size - 1)
    made = starts.flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, size), st.integers(1, 3)))
    shifted = made.flatmap(
        lambda one: st.sampled_from(
            [one, (one[0] - size, one[1], one[2]), (one[0], 2**63 - 1 if one[1] == size else one[1], one[2])]
        )
    )
    return shifted.map(lambda one: slice(*one))


@given(rows=bounds(ROWS), columns=bounds(COLUMNS), axis=st.sampled_from([0, 1, None]), stored=st.booleans())
def test_a_part_of_a_constant_is_stored_itself_and_nothing_changes(rows, columns, axis, stored):
    model = graph_of((rows, columns), axis, stored=stored)
    before = run(model)
    store_slices(model.graph)
    remove_dead(model.graph)
    assert "Slice" not in [node.op_type for node in model.graph]
    np.testing.assert_array_equal(run(model), before)


def test_its_readers_know_the_quantizer_and_its_scales_are_the_parts():
    model = graph_of((slice(2, 6, 1), slice(0, COLUMNS, 1)), 0)
    store_slices(model.graph)
    remove_dead(model.graph)
    dequantize, add = model.graph
    assert add.metadata_props["qzoo.input.1"] == "weight:w_quantizer"
    assert dequantize.metadata_props["qzoo.module"] == "w_quantizer"
    assert [value.const_value.shape.numpy() for value in dequantize.inputs] == [(4, COLUMNS), (4,)]


@pytest.mark.parametrize("axis", [0, None])
def test_what_is_computed_is_left_as_it_is(axis):
    model = graph_of((slice(0, 2, 1), slice(0, 2, 1)), axis)
    dequantize = next(iter(model.graph))
    x = model.graph.inputs[0]
    dequantize.replace_input_with(0, ir.node("Identity", [x]).outputs[0])
    before = [node.op_type for node in model.graph]
    store_slices(model.graph)
    assert [node.op_type for node in model.graph] == before
