"""QuantMultiheadAttention against nn.MultiheadAttention: in float, on rounded values, and as an exported graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from qzoo.backends.ort import reference
from qzoo.errors import SpecError
from qzoo.export import export, export_with_float
from qzoo.quant.calibrate import calibrate
from qzoo.quant.modules import QuantMultiheadAttention, quantizers
from qzoo.quant.sensitivity import layer_errors

E, HEADS, N, L, S = 8, 2, 3, 5, 4
CAUSAL = torch.ones(L, L).triu(1).bool()
PADDED = torch.tensor([[False] * 5, [False, False, True, False, True], [False, True, True, True, True]])


@dataclass(frozen=True)
class Case:
    """An attention, the shapes of query, key and value (one: all three are one tensor), and what else it is given."""

    settings: dict[str, object] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ((N, L, E),)
    words: dict[str, object] = field(default_factory=dict)

    def twin(self) -> nn.MultiheadAttention:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = nn.MultiheadAttention(E, HEADS, **{"batch_first": True, **self.settings}).eval()
            for name, parameter in made.named_parameters():
                if name.endswith("bias"):
                    nn.init.normal_(parameter)  # PyTorch's are zeros
        return made

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        random = torch.Generator().manual_seed(1)
        made = [torch.randn(shape, generator=random) for shape in self.shapes]
        return tuple((made * 3)[:3]) if len(made) != 2 else (made[0], made[1], made[1])


def random_mask(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


CASES = {
    "self": Case(),
    "self, weights averaged over heads": Case(words={"need_weights": True}),
    "self, weights of each head": Case(words={"need_weights": True, "average_attn_weights": False}),
    "self, three heads of none": Case({"bias": False}),
    "self, sequence first": Case({"batch_first": False}, ((L, N, E),), {"need_weights": True}),
    "self, without a batch": Case({}, ((L, E),), {"need_weights": True}),
    "encoder and decoder": Case({}, ((N, L, E), (N, S, E))),
    "encoder and decoder, sequence first": Case({"batch_first": False}, ((L, N, E), (S, N, E))),
    "three tensors": Case({}, ((N, L, E), (N, S, E), (N, S, E))),
    "other widths": Case({"kdim": 6, "vdim": 7}, ((N, L, E), (N, S, 6), (N, S, 7))),
    "other widths, without biases": Case({"kdim": 6, "vdim": 7, "bias": False}, ((N, L, E), (N, S, 6), (N, S, 7))),
    "Boolean mask": Case(words={"attn_mask": CAUSAL}),
    "causal mask": Case(words={"attn_mask": CAUSAL, "is_causal": True}),
    "added mask": Case(words={"attn_mask": random_mask(L, L)}),
    "a mask of each head": Case(words={"attn_mask": random_mask(N * HEADS, L, L)}),
    "a mask of each head, without a batch": Case({}, ((L, E),), {"attn_mask": random_mask(HEADS, L, L)}),
    "padding": Case(words={"key_padding_mask": PADDED}),
    "padding, sequence first": Case({"batch_first": False}, ((L, N, E),), {"key_padding_mask": PADDED}),
    "padding, without a batch": Case({}, ((L, E),), {"key_padding_mask": PADDED[1]}),
    "padding that is added": Case(words={"key_padding_mask": random_mask(N, L)}),
    "padding and mask": Case(words={"key_padding_mask": PADDED, "attn_mask": CAUSAL, "need_weights": True}),
}


def called(attention: nn.MultiheadAttention, case: Case) -> tuple[Tensor, Tensor | None]:
    with torch.no_grad():
        return attention(*case.inputs(), **{"need_weights": False, **case.words})


@pytest.mark.parametrize("name", CASES)
def test_before_calibration_it_gives_what_pytorchs_does(name):
    case = CASES[name]
    expected, weights = called(case.twin(), case)
    found, found_weights = called(QuantMultiheadAttention.from_float(case.twin(), 0), case)
    torch.testing.assert_close(found, expected)
    if weights is None:
        assert found_weights is None
    else:
        torch.testing.assert_close(found_weights, weights)


@pytest.mark.parametrize("name", ["self", "self, three heads of none", "other widths"])
@pytest.mark.parametrize("training", [False, True])
def test_its_parameters_state_dict_and_mode_are_the_float_twins(name, training):
    twin = CASES[name].twin().train(training)
    made = QuantMultiheadAttention.from_float(twin, 0)
    ours = dict(made.named_parameters())
    assert list(made.state_dict()) == list(twin.state_dict())
    assert all(ours[key] is parameter for key, parameter in twin.named_parameters())
    assert {module.training for module in made.modules()} == {training}
    assert type(twin.out_proj) is not type(made.out_proj)
    state = {key: torch.randn_like(value) for key, value in twin.state_dict().items()}
    made.load_state_dict(state, strict=True)
    assert all(torch.equal(made.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("settings", "word"), [({"add_bias_kv": True}, "add_bias_kv"), ({"add_zero_attn": True}, "add_zero_attn")]
)
def test_an_attention_that_adds_keys_of_its_own_is_refused(settings, word):
    with pytest.raises(SpecError, match=f"with {word} can't be quantized; name it in keep_float, as 'NAME\\*'"):
        QuantMultiheadAttention.from_float(nn.MultiheadAttention(E, HEADS, **settings), 0)


def test_a_class_of_somebodys_own_is_refused():
    class Own(nn.MultiheadAttention):
        pass

    with pytest.raises(SpecError, match=r"can't be made from a .*Own"):
        QuantMultiheadAttention.from_float(Own(E, HEADS), 0)


def test_a_weight_axis_that_is_no_output_channel_is_refused():
    with pytest.raises(SpecError, match="weight_axis is 1"):
        QuantMultiheadAttention.from_float(CASES["self"].twin(), 1)


def test_is_causal_without_the_mask_that_it_speaks_of_is_refused():
    made = QuantMultiheadAttention.from_float(CASES["self"].twin(), 0)
    with pytest.raises(SpecError, match="give that, too"):
        made(*CASES["self"].inputs(), is_causal=True)


def test_a_mask_of_integers_is_refused_as_pytorch_refuses_it():
    made = QuantMultiheadAttention.from_float(CASES["self"].twin(), 0)
    with pytest.raises(SpecError, match=r"a mask of torch\.uint8"):
        made(*CASES["self"].inputs(), attn_mask=CAUSAL.byte())


def calibrated(case: Case, axis: int | None = 0) -> QuantMultiheadAttention:
    made = QuantMultiheadAttention.from_float(case.twin(), axis)
    for path, quantizer in quantizers(made).items():
        quantizer.path = path
    calibrate(Given(made, case), [torch.zeros(N)], "max", "")
    return made


class Given(nn.Module):
    """An attention that gets the inputs of its case, whatever it is called with."""

    def __init__(self, attention: nn.Module, case: Case) -> None:
        super().__init__()
        self.attention, self.case = attention, case

    def forward(self, _: Tensor) -> Tensor:
        return called(self.attention, self.case)[0]


def rounded(x: Tensor, low: int, axis: int | None = None) -> Tensor:
    amax = x.abs().max() if axis is None else x.abs().amax([i for i in range(x.dim()) if i != axis], keepdim=True)
    return (x / (amax / 127)).round().clamp(low, 127) * (amax / 127)


@pytest.mark.parametrize("name", ["self", "three tensors", "other widths"])
@pytest.mark.parametrize("axis", [0, None])
def test_every_product_is_of_values_on_their_grids(name, axis):
    """By hand, with PyTorch's operators: each range is that of the tensor itself, since all are calibrated at once."""
    case = CASES[name]
    twin, made = case.twin(), calibrated(case, axis)
    if twin.in_proj_weight is not None:
        weights = rounded(twin.in_proj_weight.detach(), -127, axis).chunk(3)
    else:
        parts = (twin.q_proj_weight, twin.k_proj_weight, twin.v_proj_weight)
        weights = tuple(rounded(part.detach(), -127, axis) for part in parts)

    def heads(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return nn.functional.linear(rounded(x, -128), weight, bias).unflatten(-1, (HEADS, -1)).transpose(1, 2)

    with torch.no_grad():
        exact = called(twin, case)[0]
        triples = zip(case.inputs(), weights, twin.in_proj_bias.chunk(3), strict=True)
        queries, keys, values = (heads(*triple) for triple in triples)
        # amax was collected where nothing was rounded yet but the weights: load what this computation sees
        for path, seen in {"scores.left": queries, "scores.right": keys, "mixed.right": values}.items():
            made.get_submodule(f"{path}_quantizer").load_amax(seen.abs().max())
        scores = rounded(queries, -128) @ rounded(keys, -128).transpose(-2, -1) / (E / HEADS) ** 0.5
        attended = scores.softmax(-1)
        made.mixed.left_quantizer.load_amax(attended.abs().max())
        mixed = (rounded(attended, -128) @ rounded(values, -128)).transpose(1, 2).flatten(-2)
        made.out_proj.input_quantizer.load_amax(mixed.abs().max())
        wanted = nn.functional.linear(
            rounded(mixed, -128), rounded(twin.out_proj.weight.detach(), -127, axis), twin.out_proj.bias
        )
        found = called(made, case)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_the_error_of_each_of_its_parts_is_that_of_the_part_alone():
    case = CASES["self"]
    made = calibrated(case)
    found = {error.path: error.sqnr_db for error in layer_errors(Given(made, case).eval(), torch.zeros(N))}
    names = ("", ".scores", ".mixed", ".out_proj")
    assert set(found) == {f"attention{name}" for name in names}
    with torch.no_grad():
        wanted = called(case.twin(), case)[0]
        for path, quantizer in quantizers(made).items():
            if path.startswith(("scores.", "mixed.", "out_proj.")):
                quantizer.disable()
        noise = (called(made, case)[0] - wanted).square().sum()
    assert found["attention"] == pytest.approx(float(10 * torch.log10(wanted.square().sum() / noise)), abs=0.05)


def test_it_trains_with_the_straight_through_gradient():
    case = CASES["self"]
    made = calibrated(case).train()
    x = case.inputs()[0].requires_grad_()
    made(x, x, x)[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in made.parameters())
    assert x.grad is not None


class Block(nn.Module):
    """Self-attention over the rows of an image, then attention to another image's rows: (N, 1, 2 L, E) -> (N, L, E)."""

    def __init__(self, settings: dict[str, object]) -> None:
        super().__init__()
        self.own = Case({**settings}).twin()
        self.other = Case({**settings}).twin()
        self.sequence_first = not self.own.batch_first

    def forward(self, x: Tensor) -> Tensor:
        near, far = x[:, 0, :L], x[:, 0, L:]
        if self.sequence_first:
            near, far = near.transpose(0, 1), far.transpose(0, 1)
        near = self.own(near, near, near, need_weights=False, attn_mask=CAUSAL, is_causal=True)[0]
        result = self.other(near, far, far)[0]
        return result.transpose(0, 1) if self.sequence_first else result


SETTINGS = {"batch first": {}, "sequence first, no biases": {"batch_first": False, "bias": False}}


@pytest.fixture(scope="module", params=SETTINGS)
def block(request) -> Block:
    made = Block(SETTINGS[request.param])
    for name in ("own", "other"):
        setattr(made, name, QuantMultiheadAttention.from_float(getattr(made, name), 0))
    for path, quantizer in quantizers(made.eval()).items():
        quantizer.path = path
    calibrate(made, [random_mask(N, 1, 2 * L, E)], "max", "")
    return made


@pytest.fixture(scope="module")
def portable(block) -> ir.Model:
    return export(block, "input", (1, 2 * L, E), ["out"])


def test_every_matrix_product_of_the_graph_reads_two_pairs_or_a_stored_weight(portable):
    products = [node for node in portable.graph if node.op_type == "MatMul"]
    assert len(products) == 2 * (3 + 2 + 1)
    for node in products:
        for value in node.inputs:
            maker = value.producer()
            while maker.op_type == "Transpose":
                maker = maker.inputs[0].producer()
            assert maker.op_type == "DequantizeLinear"


def test_the_packed_weight_is_stored_as_three_and_one_input_has_one_pair(portable, block):
    stored = [
        node
        for node in portable.graph
        if node.op_type == "DequantizeLinear" and node.metadata_props["qzoo.module"] == "own.in_proj_weight_quantizer"
    ]
    assert len(stored) == 3
    for node, part in zip(stored, block.own.in_proj_weight.detach().chunk(3), strict=True):
        integers, scale = (value.const_value.numpy() for value in node.inputs[:2])
        assert (integers.dtype, integers.shape, scale.shape) == (np.int8, (E, E), (E,))
        np.testing.assert_allclose(integers * scale[:, None], rounded(part, -127, 0).numpy(), atol=1e-6)
    read = [node for node in portable.graph if "own.query_quantizer" in node.metadata_props.get("qzoo.module", "")]
    names = "own.key_quantizer,own.query_quantizer,own.value_quantizer"
    assert [(node.op_type, node.metadata_props["qzoo.module"]) for node in read] == [
        ("QuantizeLinear", names),
        ("DequantizeLinear", names),
    ]


@pytest.mark.parametrize("batch", [1, 4])
def test_the_exported_graph_computes_what_the_module_does_at_any_batch(block, portable, batch):
    images = random_mask(batch, 1, 2 * L, E)
    with torch.no_grad():
        want = block(images).numpy()
    (got,) = reference(ir.to_proto(portable).SerializeToString()).run(["out"], {"input": images.numpy()})
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_the_float_graph_computes_what_pytorchs_attention_does(block):
    floating = Block(SETTINGS["batch first" if block.own.batch_first else "sequence first, no biases"])
    images = random_mask(2, 1, 2 * L, E)
    _, graph = export_with_float(block, "input", (1, 2 * L, E), ["out"])
    (got,) = reference(ir.to_proto(graph).SerializeToString()).run(["out"], {"input": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(got, floating.eval()(images).numpy(), rtol=0, atol=1e-5)
