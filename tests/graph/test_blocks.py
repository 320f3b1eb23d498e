"""The convolution of an image by blocks of pixels, held to the same convolution by onnx's own evaluator.

Scales are powers of two, so that every product and sum is exact and equal means equal.
"""

from __future__ import annotations

from string import Template

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qzoo.graph import lower
from qzoo.graph.blocks import convolve_blocks
from qzoo.graph.canonicalize import canonicalize
from qzoo.pipeline.assemble import serialize

FAKE = 'qzoo.FakeQuantize <axis: int = {axis}, low: int = {low}, role: string = "{role}", path: string = "{path}">'
STEM = f"""
g (float[N,$channels,$height,$width] x) => (float[N,4,$rows,$columns] y) {{
  [q] x_q = {FAKE.format(axis=-1, low=-128, role="input", path="stem.input")} (x, step)
  [w] w_q = {FAKE.format(axis=0, low=-127, role="weight", path="stem.weight")} (w, w_step)
  [c] c = Conv <strides = [$stride,$stride], pads = [$pads]> (x_q, w_q, b)
  [r] r = Relu (c)
  [o] y = {FAKE.format(axis=-1, low=-128, role="input", path="next.input")} (r, out)
}}
"""


@pytest.fixture(scope="module")
def stem(parse):
    """A quantized convolution of an image, lowered as onnxruntime's is but for the blocks."""

    def build(kernel=(7, 7), size=(16, 12), pads=(3, 3, 3, 3), channels=3, stride=2):
        rows, columns = ((size[i] + pads[i] + pads[i + 2] - kernel[i]) // stride + 1 for i in (0, 1))
        text = Template(STEM).substitute(
            channels=channels,
            height=size[0],
            width=size[1],
            rows=rows,
            columns=columns,
            stride=stride,
            pads=",".join(map(str, pads)),
        )
        random = np.random.default_rng(0)
        arrays = {
            "step": np.float32(2**-5),
            "out": np.float32(2**-3),
            "w": random.integers(-127, 128, (4, channels, *kernel)).astype(np.float32) * np.float32(2**-7),
            "w_step": np.full(4, 2**-7, np.float32),
            "b": random.integers(-99, 99, 4).astype(np.float32) * np.float32(2**-9),
        }
        return lower.run_passes(
            canonicalize(parse(text, **arrays)), [lower.unsigned_non_negative, lower.offset_signed, lower.absorb_clamps]
        )

    return build


def images(model) -> np.ndarray:
    shape = [2, *(int(size) for size in model.graph.inputs[0].shape[1:])]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph]


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    half=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pads=st.tuples(*[st.integers(0, 4)] * 4),
    channels=st.integers(1, 4),
)
def test_any_kernel_size_and_padding_gives_the_same_values(stem, evaluate, kernel, half, pads, channels):
    size = 2 * half[0], 2 * half[1]
    assume(all(size[i] + pads[i] + pads[i + 2] >= kernel[i] for i in (0, 1)))
    model = stem(kernel, size, pads, channels)
    blocks = lower.run_passes(model, [convolve_blocks])
    x = images(model)
    np.testing.assert_array_equal(evaluate(blocks, x=x)[0], evaluate(model, x=x)[0])


def test_the_convolution_reads_blocks_of_two_by_two_with_stride_one(stem, node):
    conv = node(lower.run_passes(stem(), [convolve_blocks]), "Conv")
    assert tuple(conv.attributes.get_ints("strides")) == (1, 1)
    assert tuple(conv.attributes.get_ints("kernel_shape")) == (4, 4)
    assert tuple(conv.attributes.get_ints("pads")) == (2, 2, 1, 1)
    assert tuple(conv.inputs[0].shape)[1:] == (12, 8, 6)


@pytest.mark.parametrize(
    "other",
    [{"stride": 1}, {"channels": 5}, {"size": (15, 12)}, {"size": (16, 11)}, {"kernel": (1, 1), "pads": (0, 0, 0, 0)}],
    ids=["stride 1", "five channels", "odd height", "odd width", "one pixel"],
)
def test_other_convolutions_stay(stem, other):
    model = stem(**other)
    assert operators(lower.run_passes(model, [convolve_blocks])) == operators(model)


def test_a_convolution_whose_image_somebody_else_reads_stays(stem):
    model = stem()
    (quantized,) = [
        node for node in model.graph if node.op_type == "DequantizeLinear" and node.name.startswith("stem.in")
    ]
    model.graph.outputs.append(quantized.outputs[0])
    assert "SpaceToDepth" not in operators(convolve_blocks(model))


def test_onnxruntime_convolves_the_blocks_in_integers(stem, tmp_path):
    model = stem()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    graph = serialize(lower.run_passes(model, [convolve_blocks]))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert "QLinearConv" in kinds
    assert "Conv" not in kinds
    plain = onnxruntime.InferenceSession(serialize(model), providers=["CPUExecutionProvider"])
    x = images(model)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], plain.run(None, {"x": x})[0])
