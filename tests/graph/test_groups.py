"""Modules that are kept in float on one target, on a small network with all kinds of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.graph import lower
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.groups import float_groups, keep_float

Q = 'qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "{}.input_quantizer">'
W = 'qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "{}.weight_quantizer">'
WEIGHTED = {"stem": (4, 3, 3, 3), "dw": (4, 1, 3, 3), "fc1": (2, 4, 1, 1), "fc2": (4, 2, 1, 1), "head": (3, 4)}
NETWORK = f"""
g (float[N,3,6,6] x) => (float[N,3] y) {{
  x_q = {Q.format("stem")} (x, s)
  stem_w = {W.format("stem")} (stem, stem_s)
  a = Conv <pads = [1,1,1,1]> (x_q, stem_w)
  a_q = {Q.format("dw")} (a, s)
  dw_w = {W.format("dw")} (dw, dw_s)
  b = Conv <pads = [1,1,1,1], group = 4> (a_q, dw_w)
  p_q = {Q.format("pool")} (b, s)
  p = GlobalAveragePool (p_q)
  f_q = {Q.format("fc1")} (p, s)
  fc1_w = {W.format("fc1")} (fc1, fc1_s)
  f = Conv (f_q, fc1_w)
  r = Relu (f)
  r_q = {Q.format("fc2")} (r, s)
  fc2_w = {W.format("fc2")} (fc2, fc2_s)
  g0 = Conv (r_q, fc2_w)
  h = HardSigmoid (g0)
  l_q = {Q.format("mul")} (b, s2)
  h_q = {Q.format("mul")} (h, s)
  m = Mul (l_q, h_q)
  m_q = {Q.format("last_pool")} (m, s)
  v = GlobalAveragePool (m_q)
  t = Flatten (v)
  t_q = {Q.format("head")} (t, s)
  head_w = {W.format("head")} (head, head_s)
  y = Gemm <transB = 1> (t_q, head_w, bias)
}}
"""
IMAGES = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    found = {"s": np.float32(0.05), "s2": np.float32(0.04), "bias": np.ones(3, np.float32)}
    for name, shape in WEIGHTED.items():
        weight = generator.normal(size=shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]))
        found[name] = weight.astype(np.float32)
        found[f"{name}_s"] = (np.abs(weight).reshape(len(weight), -1).max(1) / 127).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def portable(parse):
    return canonicalize(parse(NETWORK, **arrays()))


def test_each_group_is_found_by_what_its_modules_do(portable):
    assert {name: set(paths) for name, paths in float_groups(portable).items()} == {
        "depthwise": {"dw"},
        "gates": {"pool", "fc1", "fc2", "mul"},
        "first": {"stem"},
        "last": {"head"},
    }


@pytest.mark.parametrize("maximum", ["GlobalMaxPool (b)", "ReduceMax <keepdims = 1> (b, axes)"])
def test_attention_over_channels_from_their_average_and_maximum_is_a_gate(parse, maximum):
    text = NETWORK.replace("h = HardSigmoid (g0)", f"k = {maximum}\n  g1 = Add (g0, k)\n  h = HardSigmoid (g1)")
    portable = canonicalize(parse(text, axes=np.array([2, 3]), **arrays()))
    assert set(float_groups(portable)["gates"]) == {"pool", "fc1", "fc2", "mul"}


def test_a_maximum_over_channels_is_no_gate(parse):
    text = NETWORK.replace("p = GlobalAveragePool (p_q)", "p = ReduceMax <keepdims = 1> (p_q, axes)")
    assert "gates" not in float_groups(canonicalize(parse(text, axes=np.array([1]), **arrays())))


def test_a_product_of_two_branches_is_no_gate(parse):
    text = f"""
    g (float[N,2,3,3] x) => (float[N,2,3,3] y) {{
      a_q = {Q.format("mul")} (x, s)
      n = Neg (x)
      b_q = {Q.format("mul")} (n, s)
      y = Mul (a_q, b_q)
    }}"""
    assert float_groups(canonicalize(parse(text, s=np.float32(0.1)))) == {}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(kept=st.sets(st.sampled_from([*WEIGHTED, "pool", "mul", "last_pool"])))
def test_keep_float_gives_the_graph_of_a_network_without_these_modules_quantizers(parse, portable, evaluate, kept):
    lines, values = [], arrays()
    for line in NETWORK.splitlines():
        module = line.partition('path: string = "')[2].partition(".")[0]
        if module in kept and "input_quantizer" in line:
            name, _, rest = line.partition(" = ")
            lines.append(f"{name} = Identity ({rest.rpartition('(')[2].partition(',')[0]})")
        else:
            lines.append(line)
    expected = evaluate(parse("\n".join(lines), **values), x=IMAGES)
    found = evaluate(lower.run_passes(portable, [keep_float(kept)]), x=IMAGES)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)


def test_weights_of_modules_in_float_are_stored_as_floats(portable):
    lowered = lower.run_passes(portable, [keep_float(["*"])])
    assert {node.op_type for node in lowered.graph}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    assert {value.dtype.name for value in lowered.graph.initializers.values()} == {"FLOAT"}


def test_a_glob_takes_all_modules_below_a_path_and_none_changes_nothing(parse):
    text = NETWORK.replace('"fc1.', '"gate.fc1.').replace('"fc2.', '"gate.fc2.')
    portable = canonicalize(parse(text, **arrays()))
    count = [node.op_type for node in portable.graph].count("QuantizeLinear")
    below, nothing = (lower.run_passes(portable, [keep_float(globs)]) for globs in (["gate.*"], []))
    assert [node.op_type for node in below.graph].count("QuantizeLinear") == count - 2
    assert [node.op_type for node in nothing.graph].count("QuantizeLinear") == count
