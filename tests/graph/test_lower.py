"""The lowering passes, over random networks, held to the values that onnx's own evaluator gives."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.errors import GraphError
from qzoo.graph import lower
from qzoo.graph.canonicalize import canonicalize
from qzoo.graph.edit import pairs, weight_dequantizers

CASES = settings(max_examples=60, deadline=None, derandomize=True)
EXACT = {
    # name: the passes before, and the one that must change no value of theirs
    "offset_signed": ([], lower.offset_signed),
    "offset_signed, some unsigned": ([lower.unsigned_non_negative], lower.offset_signed),
    "absorb_clamps": ([lower.quantize_before_moves, lower.unsigned_non_negative], lower.absorb_clamps),
    "absorb_clamps, all signed": ([], lower.absorb_clamps),
    "quantize_before_moves": ([], lower.quantize_before_moves),
    "quantize_before_moves, adds unquantized": ([lower.keep_roles(("input",))], lower.quantize_before_moves),
    "spell_out_zero_points": ([], lower.spell_out_zero_points),
    "slim": ([], lower.slim),
    "keep_roles, all": ([], lower.keep_roles(("input", "weight", "skip", "branch", "output"))),
    "narrow_weights, 127": ([], lower.narrow_weights(127)),
}


class Network:
    """An exported network, written operator by operator: its text, its arrays, and the shape at its end."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.lines: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {"x": (2, 6, 6)}
        self.arrays: dict[str, np.ndarray] = {}

    def op(self, expression: str, shape: tuple[int, ...]) -> str:
        name = f"v{len(self.shapes)}"
        self.shapes[name] = shape
        self.lines.append(f"[n_{name}] {name} = {expression}")
        return name

    def array(self, array: np.ndarray) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = array.astype(array.dtype if array.dtype == np.int64 else np.float32)
        return name

    def quantized(self, value: str, role: str) -> str:
        # tensors here are about as large as a standard normal; some scales cut them off, some are coarse
        scale = self.array(np.asarray(self.random.choice([0.005, 0.02, 0.1])))
        return self.op(f"{_fake(role, f'q{len(self.shapes)}', -1)} ({value}, {scale})", self.shapes[value])

    def weight(self, shape: tuple[int, ...]) -> str:
        weight = self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        scale = np.abs(weight).reshape(len(weight), -1).max(1) / 127
        name = f"w{len(self.shapes)}"
        return self.op(f"{_fake('weight', name, 0)} ({self.array(weight)}, {self.array(scale)})", shape)

    def conv(self, value: str, channels: int, kernel: int) -> str:
        given_, *size = self.shapes[value]
        inputs = self.quantized(value, "input"), self.weight((channels, given_, kernel, kernel))
        bias, pad = self.array(self.random.normal(size=channels)), kernel // 2
        return self.op(f"Conv <pads = [{pad},{pad},{pad},{pad}]> ({', '.join(inputs)}, {bias})", (channels, *size))

    def relu(self, value: str) -> str:
        return self.op(f"Relu ({value})", self.shapes[value])

    def clip(self, value: str) -> str:
        low, high = self.array(np.asarray(self.random.choice([0, -0.3]))), self.array(np.asarray(0.6))
        return self.op(f"Clip ({value}, {low}, {high})", self.shapes[value])

    def hard_swish(self, value: str) -> str:
        return self.op(f"HardSwish ({value})", self.shapes[value])

    def max_pool(self, value: str) -> str:
        channels, height, width = self.shapes[value]
        shape = (channels, -(-height // 2), -(-width // 2))
        return self.op(f"MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> ({value})", shape)

    def residual(self, value: str, kernel: int) -> str:
        branch = self.conv(value, self.shapes[value][0], kernel)
        both = f"{self.quantized(value, 'skip')}, {self.quantized(branch, 'branch')}"
        return self.op(f"Add ({both})", self.shapes[value])

    def head(self, value: str, kind: str) -> str:
        channels, *size = self.shapes[value]
        if kind == "pool":
            pooled = self.op(f"GlobalAveragePool ({self.quantized(value, 'input')})", (channels, 1, 1))
            value, size = pooled, [1, 1]
        flat = self.op(f"Flatten ({value})", (channels * int(np.prod(size)),))
        inputs = self.quantized(flat, "input"), self.weight((3, *self.shapes[flat])), self.array(np.ones(3))
        return self.op(f"Gemm <transB = 1> ({', '.join(inputs)})", (3,))

    def text(self, outputs: list[str]) -> str:
        def declared(name: str) -> str:
            batch = [] if name.startswith("v") and name in self._weights() else ["N"]
            return f"float[{','.join(map(str, [*batch, *self.shapes[name]]))}] {name}"

        inner = ", ".join(declared(name) for name in self.shapes if name not in {"x", *outputs})
        return (
            f"g ({declared('x')}) => ({', '.join(map(declared, outputs))}) <{inner}> {{\n" + "\n".join(self.lines) + "}"
        )

    def _weights(self) -> set[str]:
        return {line.split()[1] for line in self.lines if '"weight"' in line}


def _fake(role: str, path: str, axis: int) -> str:
    low = -127 if role == "weight" else -128
    return f'qzoo.FakeQuantize <axis: int = {axis}, low: int = {low}, role: string = "{role}", path: string = "{path}">'


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, dict[str, np.ndarray]]:
    """Convolutions, residual blocks, activations and max-poolings in any order, then a head, or none."""
    network, value = Network(draw(st.integers(0, 2**16))), "x"
    kinds = st.sampled_from(["conv", "relu", "clip", "hard_swish", "max_pool", "residual"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=6)):
        if kind == "conv":
            value = network.conv(value, draw(st.integers(1, 4)), draw(st.sampled_from([1, 3])))
        elif kind == "residual":
            value = network.residual(value, draw(st.sampled_from([1, 3])))
        else:
            value = getattr(network, kind)(value)
    outputs = draw(st.sampled_from([[], [value]]))  # sometimes a tensor inside is an output, too
    kind = draw(st.sampled_from(["pool", "flatten", "none"]))
    end = value if kind == "none" else network.head(value, kind)
    outputs = [end, *(name for name in outputs if name not in {end, "x"})]
    return network.text(outputs), network.arrays


def images(seed: int = 0, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 2, 6, 6)).astype(np.float32)


def serialized(model: ir.Model) -> bytes:
    return ir.to_proto(model).SerializeToString(deterministic=True)


@pytest.fixture(scope="session")
def portable_graph(parse):
    """A drawn network -> its portable graph."""
    return lambda network: canonicalize(parse(network[0], **network[1]))


def stored_weights(model: ir.Model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each weight's module: the stored integers, and the scale shaped to multiply them."""
    found = {}
    for node in weight_dequantizers(model.graph):
        stored, scale = (value.const_value.numpy() for value in node.inputs[:2])
        shape = [-1, *[1] * (stored.ndim - 1)] if scale.ndim else []
        found[node.metadata_props["qzoo.module"]] = stored.astype(np.float64), scale.astype(np.float64).reshape(shape)
    return found


@pytest.mark.parametrize("name", EXACT)
@CASES
@given(network=networks())
def test_an_exact_pass_changes_no_value(portable_graph, evaluate, name, network):
    before, exact = EXACT[name]
    portable = lower.run_passes(portable_graph(network), before)
    lowered = lower.run_passes(portable, [exact])
    for expected, found in zip(evaluate(portable, x=images()), evaluate(lowered, x=images()), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_offset_signed_changes_no_bit_of_resnet20_in_onnxruntime(bundles):
    portable = ir.load(bundles["onnxruntime"].path / "portable.onnx")
    lowered = lower.run_passes(portable, [lower.offset_signed])
    assert {str(pair.zero_point.dtype) for pair in pairs(lowered.graph)} == {"uint8"}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    digits = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(serialized(model), options).run(None, {"input": digits})[0]
        for model in (portable, lowered)
    )
    np.testing.assert_array_equal(after, before)


@CASES
@given(network=networks(), roles=st.sets(st.sampled_from(["input", "skip", "branch"])))
def test_keep_roles_gives_the_graph_of_a_network_without_the_other_quantizers(
    parse, evaluate, portable_graph, network, roles
):
    text, arrays = network
    dropped = "|".join({"input", "skip", "branch"} - roles)
    without = re.sub(
        rf'qzoo.FakeQuantize <[^>]*role: string = "({dropped})"[^>]*> \((\w+), \w+\)', r"Identity (\2)", text
    )
    lowered = lower.run_passes(portable_graph(network), [lower.keep_roles(roles)])
    for expected, found in zip(
        evaluate(parse(without, **arrays), x=images()), evaluate(lowered, x=images()), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert {role for pair in pairs(lowered.graph) for role in pair.quantize.metadata_props["qzoo.role"].split(",")} <= {
        "input",
        "skip",
        "branch",
    }


@CASES
@given(network=networks())
def test_unsigned_quantizers_are_put_only_on_tensors_without_a_negative_value(portable_graph, evaluate, network):
    lowered = lower.run_passes(portable_graph(network), [lower.unsigned_non_negative])
    unsigned = [pair.tensor for pair in pairs(lowered.graph) if pair.zero_point.dtype == np.uint8]
    lowered.graph.outputs[:] = unsigned
    assert all((tensor >= 0).all() for tensor in evaluate(lowered, x=10 * images()))


QUANTIZED_RELU = """
g (float[N] x) => (float[N] y) {
  r = Relu (x)
  y = qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "q"> (r, scale)
}
"""


@CASES
@given(amax=st.floats(1e-6, 1e6), seed=st.integers(0, 2**16))
def test_an_unsigned_quantizer_keeps_the_range_and_is_within_half_its_finer_step(parse, evaluate, amax, seed):
    x = np.random.default_rng(seed).uniform(-0.2 * amax, 1.2 * amax, 64).astype(np.float32)
    portable = canonicalize(parse(QUANTIZED_RELU, scale=np.float32(amax / 127)))
    (found,) = evaluate(lower.run_passes(portable, [lower.unsigned_non_negative]), x=x)
    np.testing.assert_allclose(found, np.clip(x, 0, amax), rtol=0, atol=(0.5 + 1e-4) * amax / 255)


UNARY = ["Relu", "Sigmoid", "HardSigmoid", "Softmax", "Exp", "Abs", "Neg", "Tanh", "LeakyRelu", "Identity", "Floor"]
SHAPED = [
    "MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]>",
    "AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1>",
    "Transpose <perm = [0,1,3,2]>",
]
BINARY = ["Add", "Mul", "Sub", "Max", "Min", "Concat <axis: int = 1>"]


@st.composite
def operator_graphs(draw: st.DrawFn) -> str:
    """Operators over one input and two constants, every value an output."""
    values, lines = ["x", "above", "below"], []
    for index in range(draw(st.integers(1, 12))):
        name = f"v{index}"
        one, two = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        kind = draw(st.sampled_from([*UNARY, *SHAPED, *BINARY, "Clip"]))
        operands = f"{one}, {two}" if kind in BINARY else one
        operands += f", {draw(st.sampled_from(['half', 'minus_half', 'nought']))}" if kind == "Clip" else ""
        lines.append(f"{name} = {kind} ({operands})")
        if not kind.startswith("Concat"):
            values.append(name)
    outputs = ", ".join(f"float[a{i},b{i},c{i},d{i}] v{i}" for i in range(len(lines)))
    return f"g (float[2,3,4,4] x) => ({outputs}) {{ {' '.join(lines)} }}"


@settings(CASES, max_examples=200)
@given(text=operator_graphs())
def test_what_is_shown_to_be_non_negative_never_holds_a_negative_value(parse, evaluate, text):
    constant = np.random.default_rng(1).uniform(0, 1, (1, 3, 1, 1)).astype(np.float32)
    small = {"half": np.float32(0.5), "minus_half": np.float32(-0.5), "nought": np.float32(0)}
    model = parse(
        text, above=np.broadcast_to(constant, (2, 3, 4, 4)), below=-np.ones((2, 3, 4, 4), np.float32), **small
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        results = evaluate(model, x=x)
    for value, result in zip(model.graph.outputs, results, strict=True):
        assert not lower.non_negative(value) or not (result < 0).any(), value.name


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("Relu (x)", True),
        ("GlobalAveragePool (r)", True),
        ("Add (r, s)", True),
        ("Mul (r, s)", True),
        ("Concat <axis: int = 1> (r, s)", True),
        ("Clip (x, nought)", True),
        ("Clip (x, minus_one)", False),
        ("Add (r, x)", False),
        ("Sub (r, s)", False),
        ("Conv (r, r)", False),
        ('Resize <mode: string = "linear"> (r, , scales)', True),
        ('Resize <mode: string = "cubic"> (r, , scales)', False),  # it overshoots
    ],
)
def test_the_sign_of_an_operator_is_known(parse, operator, expected):
    text = f"g (float[1,2,4,4] x) => (float[a,b,c,d] y) {{ r = Relu (x) s = Sigmoid (x) y = {operator} }}"
    arrays = {"nought": np.float32(0), "minus_one": np.float32(-1), "scales": np.array([1, 1, 2, 2], np.float32)}
    assert lower.non_negative(parse(text, **arrays).graph.outputs[0]) is expected


@CASES
@given(network=networks(), limit=st.integers(1, 126))
def test_narrow_weights_keeps_the_limit_and_stays_within_half_a_step(portable_graph, network, limit):
    portable = portable_graph(network)
    before = stored_weights(portable)
    after = stored_weights(lower.run_passes(portable, [lower.narrow_weights(limit)]))
    assert before.keys() == after.keys()
    for module, (stored, scale) in after.items():
        old, old_scale = before[module]
        assert np.abs(stored).max() <= limit
        np.testing.assert_allclose(scale, old_scale * 127 / limit, rtol=1e-6)
        assert (np.abs(stored * scale - old * old_scale) <= (0.5 + 1e-4) * scale).all()


@CASES
@given(network=networks())
def test_narrow_weights_at_127_changes_no_byte(portable_graph, network):
    portable = portable_graph(network)
    assert serialized(lower.run_passes(portable, [lower.narrow_weights(127)])) == serialized(portable)


TAIL = """
g (float[N,2,4,4] x) => (float[N,3,4,4] y) {
  r = Relu (x)
  v = Identity (r)
  x_fq = qzoo.FakeQuantize <axis: int = -1, low: int = -128, role: string = "input", path: string = "q"> (v, x_scale)
  w_fq = qzoo.FakeQuantize <axis: int = 0, low: int = -127, role: string = "weight", path: string = "w"> (w, w_scale)
  y = Conv (x_fq, w_fq, b)
}
"""
ARRAYS = {
    "x_scale": np.float32(0.02),
    "w": np.random.default_rng(0).normal(size=(3, 2, 1, 1)).astype(np.float32),
    "w_scale": np.full(3, 0.02, np.float32),
    "b": np.ones(3, np.float32),
}
POOL = "MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (r)"


def operators(model: ir.Model) -> list[str]:
    return [node.op_type.replace("Linear", "") for node in model.graph]


def test_a_relu_that_only_an_unsigned_quantizer_reads_is_absorbed(parse):
    portable = canonicalize(parse(TAIL.replace("v = Identity (r)", "").replace("(v,", "(r,"), **ARRAYS))
    kept, dropped = (
        lower.run_passes(portable, passes)
        for passes in ([lower.absorb_clamps], [lower.unsigned_non_negative, lower.absorb_clamps])
    )
    assert operators(kept) == ["Relu", "Quantize", "Dequantize", "Dequantize", "Conv"]
    assert operators(dropped) == ["Quantize", "Dequantize", "Dequantize", "Conv"]


def test_a_relu_that_somebody_else_reads_stays(parse):
    text = TAIL.replace("v = Identity (r)", "[reader] side = Neg (r)").replace("(v,", "(r,")
    text = text.replace("(float[N,3,4,4] y)", "(float[N,3,4,4] y, float[N,2,4,4] side)")
    lowered = lower.run_passes(canonicalize(parse(text, **ARRAYS)), [lower.unsigned_non_negative, lower.absorb_clamps])
    assert operators(lowered)[0] == "Relu"


CLIP = TAIL.replace("v = Identity (r)", "v = Clip (r, low, high)")


@pytest.mark.parametrize(("low", "high", "absorbed"), [(0, 4, True), (0, 6, True), (0, 3.9, False), (0.5, 6, False)])
def test_a_clip_is_absorbed_where_its_bounds_lie_at_the_ends_of_the_grid_or_beyond(parse, low, high, absorbed):
    arrays = {**ARRAYS, "x_scale": np.float32(4 / 127), "low": np.float32(low), "high": np.float32(high)}
    text = CLIP.replace("r = Relu (x)", "r = Identity (x)")
    lowered = lower.run_passes(canonicalize(parse(text, **arrays)), [lower.unsigned_non_negative, lower.absorb_clamps])
    assert ("Clip" not in operators(lowered)) is absorbed


def test_max_pooling_runs_between_pairs_on_one_grid(parse):
    portable = canonicalize(parse(TAIL.replace("Identity (r)", POOL), **ARRAYS))
    lowered = lower.run_passes(portable, [lower.quantize_before_moves])
    assert operators(lowered) == ["Relu", *["Quantize", "Dequantize", "MaxPool"], *operators(portable)[2:]]
    before, after = pairs(lowered.graph)
    assert before.grid() == after.grid()


@pytest.mark.parametrize(("scale", "pooled"), [(0.02, True), (0.03, False)])
def test_a_moved_tensor_with_two_readers_is_quantized_early_only_on_a_grid_they_share(parse, scale, pooled):
    second = f"x_fq2 = {_fake('input', 'q2', -1)} (v, scale2) z = Conv (x_fq2, w_fq, b) y = Add (z, z0)"
    text = TAIL.replace("Identity (r)", POOL).replace("y = Conv (x_fq, w_fq, b)", f"z0 = Conv (x_fq, w_fq, b) {second}")
    portable = canonicalize(parse(text, scale2=np.float32(scale), **ARRAYS))
    lowered = lower.run_passes(portable, [lower.quantize_before_moves])
    assert (operators(lowered)[:4] == ["Relu", "Quantize", "Dequantize", "MaxPool"]) is pooled


def test_a_pair_that_is_there_already_is_used_before_a_move(parse):
    second = f"r_fq = {_fake('input', 'r', -1)} (r, x_scale) z = Conv (r_fq, w_fq, b) y = Add (z, z0)"
    text = TAIL.replace("Identity (r)", POOL).replace("y = Conv (x_fq, w_fq, b)", f"z0 = Conv (x_fq, w_fq, b) {second}")
    lowered = lower.run_passes(canonicalize(parse(text, **ARRAYS)), [lower.quantize_before_moves])
    assert operators(lowered).count("Quantize") == 2


def test_quantizing_before_moves_goes_through_a_chain_of_them(parse):
    chain = f"p = {POOL} t = Transpose <perm = [0,1,3,2]> (p) v = Transpose <perm = [0,1,3,2]> (t)"
    lowered = lower.run_passes(
        canonicalize(parse(TAIL.replace("v = Identity (r)", chain), **ARRAYS)), [lower.quantize_before_moves]
    )
    moves = ["MaxPool", "Quantize", "Dequantize", "Transpose", "Quantize", "Dequantize", "Transpose"]
    assert operators(lowered)[:10] == ["Relu", "Quantize", "Dequantize", *moves]


def test_two_moves_of_one_tensor_are_each_quantized_early_on_their_own_grid(parse, evaluate):
    second = f"""t = Transpose <perm = [0,1,3,2]> (r)
      t_fq = {_fake("input", "t", -1)} (t, t_scale)
      z = Conv (t_fq, w_fq, b) y = Add (z, z0)"""
    text = TAIL.replace("Identity (r)", POOL).replace("y = Conv (x_fq, w_fq, b)", f"z0 = Conv (x_fq, w_fq, b) {second}")
    portable = canonicalize(parse(text, t_scale=np.float32(0.3), **ARRAYS))
    lowered = lower.run_passes(portable, [lower.quantize_before_moves])
    assert operators(lowered).count("Quantize") == 4
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(evaluate(lowered, x=x), evaluate(portable, x=x))


def biased(parse, x_scale: float, w_scales: np.ndarray, biases: np.ndarray) -> ir.Model:
    random = np.random.default_rng(0)
    arrays = {
        "x_scale": np.float32(x_scale),
        "w": (random.uniform(-127, 127, (3, 2, 1, 1)) * w_scales.reshape(3, 1, 1, 1)).astype(np.float32),
        "w_scale": w_scales.astype(np.float32),
        "b": biases.astype(np.float32),
    }
    return canonicalize(parse(TAIL, **arrays))


magnitudes = st.floats(-12, 1).map(lambda exponent: 10.0**exponent)
channels = st.lists(magnitudes, min_size=3, max_size=3).map(np.array)


@CASES
@given(x_scale=st.floats(1e-4, 10), w_scales=channels, biases=channels)
def test_flooring_changes_only_channels_whose_bias_would_saturate(parse, x_scale, w_scales, biases):
    portable = biased(parse, x_scale, w_scales, biases)
    ((old, old_scale),) = stored_weights(portable).values()
    lowered = lower.run_passes(portable, [lower.floor_weight_scales])
    ((stored, scale),) = stored_weights(lowered).values()
    floor = np.abs(biases.astype(np.float32)) / (np.float64(np.float32(x_scale)) * 2**30)
    for channel in range(3):
        if floor[channel] <= old_scale[channel]:
            np.testing.assert_array_equal(stored[channel], old[channel])
            assert scale[channel] == old_scale[channel]
        else:
            np.testing.assert_allclose(scale[channel], floor[channel], rtol=1e-6)
        error = np.abs(stored[channel] * scale[channel] - old[channel] * old_scale[channel])
        assert (error <= (0.5 + 1e-6) * scale[channel]).all()


def test_flooring_keeps_the_product_of_the_scales_a_normal_float(parse):
    portable = biased(parse, 1e-4, np.full(3, 1e-36), np.zeros(3))
    lowered = lower.run_passes(portable, [lower.floor_weight_scales])
    ((stored, scale),) = stored_weights(lowered).values()
    assert (np.float32(1e-4) * scale.astype(np.float32) >= np.finfo(np.float32).tiny).all()
    assert not stored.any()


@CASES
@given(network=networks())
def test_each_bias_is_stored_within_half_a_unit_of_the_accumulator(portable_graph, network):
    portable = portable_graph(network)
    biases = {
        node.name: node.inputs[2].const_value.numpy()
        for node in portable.graph
        if len(node.inputs) == 3 and node.op_type in ("Conv", "Gemm")
    }
    lowered = lower.run_passes(portable, [lower.floor_weight_scales, lower.quantize_biases])
    for node in lowered.graph:
        if node.name not in biases:
            continue
        (step, weight_step, unit), stored = (
            [source.producer().inputs[1].const_value.numpy() for source in node.inputs],
            node.inputs[2].producer().inputs[0].const_value.numpy(),
        )
        assert stored.dtype == np.int32
        np.testing.assert_array_equal(unit, step * weight_step)
        error = np.abs(stored * unit.astype(np.float64) - biases[node.name])
        assert (error <= (0.5 + 1e-6) * unit).all()


def test_a_gemms_zero_points_are_spelled_out(portable_graph):
    network = Network(0)
    portable = portable_graph((network.text([network.head("x", "flatten")]), network.arrays))
    gemm = list(lower.run_passes(portable, [lower.quantize_biases, lower.spell_out_zero_points]).graph)[-1]
    for value, kind in zip(gemm.inputs[1:], (np.int8, np.int32), strict=True):
        zero_point = value.producer().inputs[2].const_value.numpy()
        assert zero_point.dtype == kind
        assert not zero_point.any()


def test_a_bias_that_two_layers_share_is_stored_for_each_in_its_own_unit(parse, evaluate):
    second = f"""w2_fq = {_fake("weight", "w2", 0)} (w2, w2_scale)
      z = Conv (x_fq, w2_fq, b) y = Add (z, z0)"""
    text = TAIL.replace("y = Conv (x_fq, w_fq, b)", f"z0 = Conv (x_fq, w_fq, b) {second}")
    portable = canonicalize(parse(text, w2=5 * ARRAYS["w"], w2_scale=5 * ARRAYS["w_scale"], **ARRAYS))
    lowered = lower.run_passes(portable, [lower.quantize_biases])
    units = {
        node.inputs[1].name for node in lowered.graph if node.inputs[0] and node.inputs[0].name.startswith("b.int32")
    }
    assert len(units) == 2
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(lowered, x=x), evaluate(portable, x=x), atol=0.02 * 0.02 * 6)


def test_a_bias_of_an_unquantized_layer_stays_float(parse):
    text = TAIL.replace("Conv (x_fq, w_fq, b)", "Conv (v, w_fq, b)")
    lowered = lower.run_passes(canonicalize(parse(text, **ARRAYS)), [lower.floor_weight_scales, lower.quantize_biases])
    (conv,) = [node for node in lowered.graph if node.op_type == "Conv"]
    np.testing.assert_array_equal(conv.inputs[2].const_value.numpy(), ARRAYS["b"])


def test_slim_drops_what_only_passes_need(parse):
    lowered = lower.run_passes(canonicalize(parse(TAIL, **ARRAYS)), [lower.slim])
    assert {key for node in lowered.graph for key in node.metadata_props} == {"qzoo.role"}
    computed = {name for node in ir.to_proto(lowered).graph.node for name in node.output}
    assert computed.isdisjoint(info.name for info in ir.to_proto(lowered).graph.value_info)
    assert [list(value.shape) for value in lowered.graph.outputs] == [["N", 3, 4, 4]]


ALL = [
    lower.keep_roles(("input",)),
    lower.narrow_weights(63),
    lower.quantize_before_moves,
    lower.unsigned_non_negative,
    lower.offset_signed,
    lower.absorb_clamps,
    lower.floor_weight_scales,
    lower.quantize_biases,
    lower.spell_out_zero_points,
    lower.slim,
]


@CASES
@given(network=networks())
def test_lowering_leaves_its_input_as_it_was_and_gives_the_same_bytes_again(portable_graph, network):
    portable = portable_graph(network)
    before = serialized(portable)
    once, twice = (serialized(lower.run_passes(portable, ALL)) for _ in range(2))
    assert serialized(portable) == before
    assert once == twice


def test_a_pass_that_breaks_the_graph_is_caught_before_the_next_one_runs(parse):
    def zero_scales(model: ir.Model) -> ir.Model:
        for pair in pairs(model.graph):
            pair.set_grid(model.graph, np.float32(0), pair.zero_point)
        return model

    def never(model: ir.Model) -> ir.Model:
        pytest.fail("the pass after a broken one ran")

    with pytest.raises(GraphError, match=r"^q\.quantize: every scale must be finite and > 0, found 0\.0"):
        lower.run_passes(canonicalize(parse(TAIL, **ARRAYS)), [zero_scales, never])


def test_a_pass_that_leaves_a_quantizer_without_its_dequantizer_is_caught(parse):
    def unpair(model: ir.Model) -> ir.Model:
        (pair,) = pairs(model.graph)
        model.graph.outputs.append(pair.quantize.outputs[0])
        pair.output.replace_all_uses_with(pair.tensor)
        return model

    with pytest.raises(GraphError, match=r"^q\.quantize: a QuantizeLinear must be read by one .*, not by nothing"):
        lower.run_passes(canonicalize(parse(TAIL, **ARRAYS)), [unpair])
