"""Ranges beside a graph without quantizers: the portable graph's scales come back from them."""

from __future__ import annotations

import struct

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.edit import pairs, quantizers_of
from qzoo.graph.lower import keep_roles, run_passes
from qzoo.graph.ranges import calibration_cache, ranges_of, without_quantizers
from qzoo.pipeline.assemble import serialize
from qzoo.records import CalibrationTable, decode


@pytest.fixture(scope="module")
def portable(bundles) -> ir.Model:
    """resnet20's."""
    return ir.load(bundles["onnxruntime"].path / "portable.onnx")


@pytest.fixture(scope="module")
def ranges(portable):
    return ranges_of(portable)


def test_every_scale_comes_back_from_the_ranges_to_the_last_bit(portable, ranges):
    found = list(pairs(portable.graph))
    assert len(found) > 20
    for pair in found:
        assert np.float32(ranges.calibrated[pair.tensor.name] / 127) == pair.scale


def test_every_scale_comes_back_from_the_calibration_cache_to_the_last_bit(portable, ranges):
    header, *lines = calibration_cache(ranges, 7234).splitlines()
    assert header == "TRT-7234-EntropyCalibration2"
    scales = {
        name: struct.unpack("!f", bytes.fromhex(text))[0] for name, text in (line.rsplit(": ", 1) for line in lines)
    }
    for pair in pairs(portable.graph):
        assert np.float32(scales[pair.tensor.name]) == pair.scale


def test_a_cache_line_is_written_as_tensorrt_writes_it(parse):
    # of a TensorRT 7.2 sample's cache: an input in [-1, 1) has the scale 0x3c008912, 0.0078452
    scale = np.frombuffer(bytes.fromhex("3c008912"), ">f4").astype(np.float32)[0]
    model = parse(PAIR, s=scale, z=np.int8(0))
    written = calibration_cache(ranges_of(model), 7202).splitlines()
    assert written[:2] == ["TRT-7202-EntropyCalibration2", "data: 3c008912"]


PAIR = "g (float[2] data) => (float[2] y) { q = QuantizeLinear (data, s, z)\n y = DequantizeLinear (q, s, z) }"


def test_each_range_is_the_amax_that_was_calibrated(portable, ranges, bundles):
    path = bundles["onnxruntime"].path / "calibration.json"
    table = decode(path.read_bytes(), CalibrationTable).ranges
    for pair in pairs(portable.graph):
        for module in quantizers_of(pair):
            assert ranges.calibrated[pair.tensor.name] == pytest.approx(table[module].amax[0], rel=1e-6)


def test_the_graph_has_no_quantizer_and_computes_as_with_unquantized_activations(portable):
    model = without_quantizers(portable)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in model.graph}
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.FLOAT, ir.DataType.INT64}
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    found, expected = (
        onnxruntime.InferenceSession(serialize(one)).run(None, {"input": images})[0]
        for one in (model, run_passes(portable, [keep_roles(())]))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_names_of_inputs_outputs_and_ranges_are_the_graphs_own(portable, ranges):
    model = without_quantizers(portable)
    assert [value.name for value in model.graph.outputs] == [value.name for value in portable.graph.outputs]
    named = {value.name for node in model.graph for value in node.outputs} | {
        value.name for value in model.graph.inputs
    }
    assert {*ranges.calibrated, *ranges.derived} <= named


def test_the_portable_graph_stays_as_it_was(portable):
    before = serialize(portable)
    without_quantizers(portable)
    ranges_of(portable)
    assert serialize(portable) == before


CHAIN = """
g (float[N,2,4,4] x) => (float[N,3,1,1] y) {
  s = Add (x, x)
  r = Relu (s)
  v = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (r)
  v_fq = qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "q"> (v, v_scale)
  w_fq = qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "w"> (w, w_scale)
  c = Conv (v_fq, w_fq)
  c_fq = qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "output", path: string = "o"> (c, c_scale)
  y = GlobalAveragePool (c_fq)
}
"""


def chain(parse, text: str = CHAIN, **more: object) -> ir.Model:
    weight = np.random.default_rng(0).normal(size=(3, 2, 1, 1)).astype(np.float32)
    scales = {"v_scale": np.float32(0.5), "c_scale": np.float32(2), "w_scale": np.full(3, 0.02, np.float32)}
    return canonicalize(parse(text, w=weight, **scales, **more))


def test_what_only_moves_or_cuts_values_takes_its_neighbours_range(parse):
    found = ranges_of(chain(parse))
    assert found.calibrated == {"v": 0.5 * 127, "c": 2.0 * 127}
    assert found.derived == {"r": 0.5 * 127, "s": 0.5 * 127, "y": 2.0 * 127}


def test_a_tensor_with_several_ranges_has_the_largest_and_all_are_told(parse):
    second = """
  v_fq2 = qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "skip", path: string = "k"> (v, k_scale)
  k = Relu (v_fq2)
}"""
    text = CHAIN.rstrip().removesuffix("}") + second
    text = text.replace("(float[N,3,1,1] y)", "(float[N,3,1,1] y, float[N,2,4,4] k)")
    found = ranges_of(chain(parse, text, k_scale=np.float32(0.25)))
    assert found.calibrated["v"] == 0.5 * 127
    assert found.several == {"v": (0.25 * 127, 0.5 * 127)}


def test_a_quantized_output_keeps_its_name(parse):
    model = without_quantizers(parse(PAIR, s=np.float32(0.5), z=np.int8(0)))
    assert [(node.op_type, node.inputs[0].name, node.outputs[0].name) for node in model.graph] == [
        ("Identity", "data", "y")
    ]
