"""Convolutions that onnxruntime has no integer kernel for, held to a float convolution by PyTorch."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from qzoo.graph import lower
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.unfused import float_unfused
from qzoo.pipeline.assemble import serialize

QUANTIZED = 'qzoo.FakeQuantize <axis: int = {axis}, low: int = {low}, role: string = "{role}", path: string = "{path}">'
TWO = f"""
g (float[N,2,5,5] x) => (float[N,3,5,5] y) {{
  x_q = {QUANTIZED.format(axis=-1, low=-128, role="input", path="a")} (x, step)
  v_q = {QUANTIZED.format(axis=0, low=-127, role="weight", path="v")} (v, v_step)
  h = Conv <pads = [1,1,1,1]> (x_q, v_q)
  a = ACTIVATION (h)
  a_q = {QUANTIZED.format(axis=-1, low=-128, role="input", path="b")} (a, step)
  w_q = {QUANTIZED.format(axis=0, low=-127, role="weight", path="w")} (w, w_step)
  c = Conv (a_q, w_q)
  y_q = {QUANTIZED.format(axis=-1, low=-128, role="skip", path="c")} (c, step)
  y = Neg (y_q)
}}
"""
STEP = np.float32(0.02)


def weight(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A weight, its scales, and what is stored of it as a float."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32) / 4
    steps = (np.abs(values).reshape(len(values), -1).max(1) / 127).astype(np.float32)
    shaped = steps.reshape(-1, *[1] * (values.ndim - 1))
    return values, steps, np.clip(np.rint(values / shaped), -127, 127) * shaped


V, W = weight(1, (2, 2, 3, 3)), weight(2, (3, 2, 1, 1))
IMAGES = np.random.default_rng(0).normal(size=(2, 2, 5, 5)).astype(np.float32)


@pytest.fixture
def lowered(parse):
    def of(activation: str, passes=()):
        arrays = {"step": STEP, "v": V[0], "v_step": V[1], "w": W[0], "w_step": W[1]}
        portable = canonicalize(parse(TWO.replace("ACTIVATION", activation), **arrays))
        return lower.run_passes(portable, [*passes, float_unfused])

    return of


def quantized(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(torch.round(x / STEP), -128, 127) * STEP


def test_a_conv_before_an_activation_that_stays_is_a_float_conv_of_its_unquantized_input(lowered, evaluate):
    hidden = F.hardswish(F.conv2d(torch.from_numpy(IMAGES), torch.from_numpy(V[2]), padding=1))
    expected = -quantized(F.conv2d(quantized(hidden), torch.from_numpy(W[2])))
    (found,) = evaluate(lowered("HardSwish"), x=IMAGES)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_onnxruntime_dequantizes_no_weight_and_convolves_the_rest_in_integers(lowered, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(serialize(lowered("HardSwish", [lower.offset_signed])), options)
    import onnx

    graph = onnx.load(options.optimized_model_filepath).graph
    kinds = [node.op_type for node in graph.node]
    stored = {initializer.name for initializer in graph.initializer}
    assert kinds.count("Conv") + kinds.count("FusedConv") == 1
    assert kinds.count("QLinearConv") == 1
    assert not [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]


def test_a_conv_whose_activation_its_quantizer_repeats_is_left_alone(lowered):
    passes = [lower.unsigned_non_negative, lower.absorb_clamps]
    kept = lowered("Relu", passes)
    assert [node.op_type for node in kept.graph].count("DequantizeLinear") == 5
    assert not [value for value in kept.graph.initializers if value.endswith(".float")]


def test_an_input_that_comes_from_an_integer_kernel_stays_quantized(lowered):
    graph = lowered("Identity", [_conv_then_conv])
    assert [node.op_type for node in graph.graph].count("QuantizeLinear") == 2


def _conv_then_conv(model):
    # the first convolution is read by quantizers alone, the second is read by an operator
    (negate,) = [node for node in model.graph if node.op_type == "Neg"]
    (identity,) = [node for node in model.graph if node.op_type == "Identity"]
    identity.outputs[0].replace_all_uses_with(identity.inputs[0])
    second = [node for node in model.graph if node.op_type == "Conv"][1]
    negate.replace_input_with(0, second.outputs[0])
    return model
