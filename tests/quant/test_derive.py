"""What is derived from a traced network: points, fusions, what stays in float and why."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import fx, nn
from torch.fx import _symbolic_trace
from torch.nn import functional as F

from qzoo.errors import SpecError
from qzoo.export import export
from qzoo.quant.calibrate import calibrate
from qzoo.quant.derive import Derived, derive
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import (
    Concat,
    Matmul,
    QuantAdaptiveAvgPool2d,
    QuantAdd,
    QuantAvgPool2d,
    QuantConv2d,
    QuantLinear,
    QuantMatmul,
    QuantMul,
    QuantMultiheadAttention,
)
from qzoo.spec import InputSpec, ModelSpec, Preprocess, QuantSwap, Recipe

SHAPE = (3, 9, 9)
RECIPE = Recipe(target="onnxruntime", precision="int8")
SPEC = ModelSpec(
    name="net",
    summary="a test",
    builder="nowhere:nothing",
    version="1",
    input=InputSpec(shape=SHAPE, preprocess=Preprocess(resize=9, crop=9, mean=(0.0,) * 3, std=(1.0,) * 3)),
    num_classes=2,
    head="fc",
    placement="derived",
)


def images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(3))


def with_statistics(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        network.train()(images())
    return network.eval()


def derived(network: nn.Module) -> Derived:
    return derive(deepcopy(network).eval(), SHAPE, "net")


def reasons(network: nn.Module) -> dict[str, str]:
    return {left.path: left.reason for left in derived(network).network.left_in_float}


def exported_ops(network: nn.Module) -> list[str]:
    calibrate(network, [images()], "max", "hash")
    return [node.op_type for node in export(network, "input", SHAPE, ("logits",)).graph]


class Block(nn.Module):
    """A pre-planned residual block: two convolutions and a shortcut that is convolved, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.short = nn.Conv2d(3, 4, 1)
        self.act = nn.SiLU()

    def forward(self, x):
        out = self.act(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.short(x)
        return F.relu(out)


class Net(nn.Module):
    def __init__(self, body: nn.Module, channels: int = 4) -> None:
        super().__init__()
        self.body, self.fc = body, nn.Linear(channels, 2)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


def test_an_add_is_a_point_in_its_block_whose_skip_is_the_shorter_path():
    net = with_statistics(Net(Block()))
    made = insert_quantizers(net, SPEC, RECIPE)
    add = made.get_submodule("body.add")
    assert isinstance(add, QuantAdd)
    seen = []
    add.register_forward_pre_hook(lambda _module, args: seen.extend(args))
    with torch.no_grad():
        torch.testing.assert_close(made(images()), net(images()))
        torch.testing.assert_close(seen[0], net.body.short(images()))


def test_batchnorms_that_follow_their_convolution_are_folded_and_paths_and_state_stay():
    net = with_statistics(Net(Block()))
    before = list(net.state_dict())
    found = derived(net)
    assert [(f.conv, f.bn, f.act) for f in found.fusions] == [
        ("body.conv1", "body.bn1", "body.act"),
        ("body.conv2", "body.bn2", None),
    ]
    assert list(found.network.state_dict()) == before
    trainable = insert_quantizers(net, SPEC, RECIPE, trainable=True)
    assert list(trainable.state_dict()) == before
    assert isinstance(trainable.get_submodule("body.bn1"), nn.BatchNorm2d)
    assert isinstance(insert_quantizers(net, SPEC, RECIPE).get_submodule("body.bn1"), nn.Identity)


def test_what_is_kept_in_float_may_be_a_derived_point():
    spec = replace(SPEC, keep_float=("body.add",))
    made = insert_quantizers(with_statistics(Net(Block())), spec, RECIPE)
    assert not isinstance(made.get_submodule("body.add"), QuantAdd)


class OnlyWeights(QuantConv2d):
    """What a plugin might declare instead."""


def test_a_declared_swap_wins_over_a_derived_one():
    spec = replace(SPEC, swaps=(QuantSwap(f"{__name__}:OnlyWeights", path="body.conv1"),))
    made = insert_quantizers(with_statistics(Net(Block())), spec, RECIPE)
    assert type(made.get_submodule("body.conv1")) is OnlyWeights
    assert type(made.get_submodule("body.conv2")) is QuantConv2d


def test_automatic_placement_replaces_by_type_only():
    made = insert_quantizers(with_statistics(Net(Block())), SPEC, replace(RECIPE, placement="auto"))
    assert "body.add" not in dict(made.named_modules())
    assert isinstance(made.get_submodule("body.conv1"), QuantConv2d)


def test_a_derived_network_is_trained_and_copied():
    made = insert_quantizers(with_statistics(Net(Block())), SPEC, RECIPE, trainable=True)
    calibrate(made, [images()], "max", "hash")
    copied = deepcopy(made)
    with torch.no_grad():
        assert torch.equal(copied(images()), made(images()))
    made.train()
    before = made.get_submodule("body.bn1").running_mean.clone()
    made(images()).square().sum().backward()
    assert not torch.equal(made.get_submodule("body.bn1").running_mean, before)
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert made.eval().get_submodule("body.conv1").weight.grad.abs().sum() > 0


class Gated(nn.Module):
    """Squeeze and excitation, written with operators."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = F.silu(self.conv(x))
        x = x * torch.sigmoid(x)
        return x * self.squeeze(x.mean((2, 3), keepdim=True)).sigmoid()


def test_a_gate_is_a_point_and_an_activation_that_multiplies_is_none():
    made = insert_quantizers(Net(Gated()).eval(), SPEC, RECIPE)
    assert isinstance(made.get_submodule("body.mul"), QuantMul)
    assert "body.mul_1" not in dict(made.named_modules())
    assert isinstance(made.get_submodule("body.avgpool"), QuantAdaptiveAvgPool2d)
    assert isinstance(made.get_submodule("avgpool"), QuantAdaptiveAvgPool2d)


class Pooled(nn.Module):
    """Inception's way: branches that are concatenated, one of them pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        pooled = F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
        return self.last(torch.cat([self.left(x), self.right(pooled)], 1))


def test_a_concatenation_that_a_convolution_reads_has_one_quantizer():
    net = Net(Pooled()).eval()
    made = insert_quantizers(net, SPEC, RECIPE)
    assert isinstance(made.get_submodule("body.avgpool"), QuantAvgPool2d)
    concat = made.get_submodule("body.concat")
    assert isinstance(concat, Concat)
    calibrate(made, [images()], "max", "hash")
    with torch.no_grad():
        pooled = F.avg_pool2d(images(), 3, 1, padding=1, count_include_pad=False)
        largest = max(float(net.body.left(images()).abs().max()), float(net.body.right(pooled).abs().max()))
    assert float(concat.input_quantizer.amax) == pytest.approx(largest, rel=0.01)  # the branches' weights are quantized


class Attention(nn.Module):
    """Two heads, a class token, and a residual add of a linear layer's result."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(3, 8, 3, 3), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.qkv, self.proj = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.register_buffer("mask", None)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        batch, length, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)
        return x + self.proj(out.transpose(1, 2).reshape(batch, length, width))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = Attention(), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.body(x)[:, 0])


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_is_two_matrix_products_that_are_quantized(mask):
    torch.manual_seed(0)
    net = Transformer().eval()
    if mask is not None:
        square = torch.randn(10, 10)
        net.body.mask = square > -1 if mask == "bool" else square
    made = insert_quantizers(net, SPEC, RECIPE)
    with torch.no_grad():
        torch.testing.assert_close(made(images()), net(images()))
    for path in ("body.matmul", "body.matmul_1"):
        assert isinstance(made.get_submodule(path), QuantMatmul)
    assert isinstance(made.get_submodule("body.qkv"), QuantLinear)
    assert exported_ops(made).count("MatMul") >= 4


def test_adds_and_tokens_of_a_transformer_stay_in_float_with_the_reason():
    found = reasons(Transformer())
    assert found == {
        "body.cat": "it joins a constant, such as a class token",
        "body.add": "its branch comes from a linear layer, not from a convolution",
    }


class Causal(Attention):
    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)


class PyTorchsAttention(nn.Module):
    """nn.MultiheadAttention over patches."""

    def __init__(self, **settings) -> None:
        super().__init__()
        self.stem, self.attention = nn.Conv2d(3, 8, 3, 3), nn.MultiheadAttention(8, 2, batch_first=True, **settings)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.attention(x, x, x, need_weights=False)[0]


def transformer_of(body: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    net = Transformer().eval()
    net.body = body.eval()
    return net


def test_pytorchs_attention_is_swapped_for_the_quantized_one():
    net = transformer_of(PyTorchsAttention())
    made = insert_quantizers(net, SPEC, RECIPE)
    assert isinstance(made.get_submodule("body.attention"), QuantMultiheadAttention)
    assert reasons(net) == {}
    with torch.no_grad():
        torch.testing.assert_close(made(images()), net(images()))


def test_pytorchs_attention_with_keys_of_its_own_stays_in_float_with_the_reason():
    net = transformer_of(PyTorchsAttention(add_bias_kv=True))
    made = insert_quantizers(net, SPEC, RECIPE)
    assert type(made.get_submodule("body.attention")) is nn.MultiheadAttention
    assert reasons(net) == {"body.attention": "PyTorch's attention with add_bias_kv is computed in one call"}


def test_pytorchs_attention_inside_what_can_not_be_traced_is_quantized_whole():
    class Reluctant(PyTorchsAttention):
        def forward(self, x):
            return super().forward(x) if x.sum() > -1e9 else x

    found = derived(transformer_of(Reluctant()))
    swaps = {swap.path: swap.to for swap in found.swaps}
    assert swaps["body.attention"] == "qzoo.quant.modules:QuantMultiheadAttention"
    assert [left.path for left in found.network.left_in_float] == ["body"]


def masked_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """What a library may keep from tracers: a mask that is written to, and a bias of which a part is set to zero."""
    bias = bias.clone()
    bias[: bias.numel() // 2].zero_()
    mask = x.new_zeros((x.shape[1], x.shape[1]))
    mask[:2, 2:] = -1
    x = F.linear(x, weight, bias)
    return (x @ x.transpose(1, 2) + mask).softmax(-1) @ x


def by_values(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weight) if x.sum() > 0 else x * weight.sum()


def two_results(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., :4], x[..., 4:]


def joined(x: torch.Tensor) -> torch.Tensor:
    return torch.cat((x, x), -1)


fx.wrap("masked_product")
fx.wrap("joined")
fx.wrap("by_values")
fx.wrap("two_results")


class Wrapped(nn.Module):
    """Computes with its layer's parameters, in a function that torch.fx.wrap made a leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 8, 3, 3), nn.Linear(8, 8)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        return masked_product(x, self.layer.weight, self.layer.bias)


def test_a_function_that_its_library_made_a_leaf_is_traced_into():
    net = transformer_of(Wrapped())
    made = insert_quantizers(net, SPEC, RECIPE)
    assert isinstance(made.get_submodule("body.layer"), QuantLinear)
    assert all(isinstance(made.get_submodule(f"body.{name}"), QuantMatmul) for name in ("matmul", "matmul_1"))
    assert made.get_submodule("body.layer").bias[:4].count_nonzero() == 0
    assert made.computed == {"body.layer.bias"}
    with torch.no_grad():
        torch.testing.assert_close(made(images()), net(images()))
        torch.testing.assert_close(made(images(1)), net(images(1)))
    assert net.body.layer.bias[:4].count_nonzero() == 4
    assert exported_ops(made).count("MatMul") == 3


class Joined(Wrapped):
    """Calls what is a leaf because of its library, and ends with a function of torch's."""

    def forward(self, x):
        return joined(self.layer(self.stem(x).flatten(2).transpose(1, 2)))[..., :8]


def test_nothing_is_registered_for_other_tracers():
    before = len(_symbolic_trace._wrapped_fns_to_patch)
    derived(transformer_of(Joined()))
    derived(transformer_of(Decided()))
    assert len(_symbolic_trace._wrapped_fns_to_patch) == before
    fx.symbolic_trace(nn.Sequential(nn.ReLU()))


class Decided(Wrapped):
    """Calls what decides by values, which no tracer gets through."""

    def forward(self, x):
        return by_values(self.stem(x).flatten(2).transpose(1, 2), self.layer.weight)


class Halved(Wrapped):
    """Calls what gives two tensors, which torch.fx.wrap can't stand for."""

    def forward(self, x):
        left, right = two_results(self.layer(self.stem(x).flatten(2).transpose(1, 2)))
        return torch.cat([right, left], -1)


@pytest.mark.parametrize(
    ("kind", "path", "why"),
    [
        (Decided, "body.by_values", "`return F.linear(x, weight) if x.sum() > 0 else x * weight.sum()`"),
        (Halved, "body.two_results", "two_results gives a tuple, not one tensor"),
    ],
)
def test_a_function_that_can_not_be_traced_stays_one_call_with_the_reason(kind, path, why):
    net = transformer_of(kind())
    assert why in reasons(net)[path]
    with torch.no_grad():
        torch.testing.assert_close(insert_quantizers(net, SPEC, RECIPE)(images()), net(images()))


class Biased(nn.Module):
    """Writes a parameter into zeros that it makes anew in every call, and a known mask into others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.table = nn.Conv2d(3, 8, 3, 3), nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        x = self.stem(x)
        bias, mask = x.new_zeros(3, 3), x.new_ones(3, 3)
        bias += self.table
        return (x + bias * mask + x.new_zeros(size=(3, 3))).flatten(2).transpose(1, 2)


def test_what_is_written_into_new_zeros_is_not_kept_for_the_next_call():
    net = transformer_of(Biased())
    made = derived(net).network
    with torch.no_grad():
        expected = net(images())
        for _ in range(3):
            torch.testing.assert_close(made(images()), expected)


def test_a_transformers_layer_of_pytorchs_stays_in_float_with_the_reason():
    class Encoder(PyTorchsAttention):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x):
            return self.attention(self.stem(x).flatten(2).transpose(1, 2))

    assert "TransformerEncoderLayer is computed in one call" in reasons(transformer_of(Encoder()))["body.attention"]


def test_attention_that_is_not_spelled_out_is_recorded():
    net = Transformer()
    net.body = Causal()
    assert "is_causal" in reasons(net)["body.scaled_dot_product_attention"]


class Standardized(nn.Conv2d):
    """Weight standardization (Qiao et al. 2019, arXiv:1903.10520): the weight is computed in every call."""

    def forward(self, x):
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True, momentum=0.0)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, self.stride, self.padding)


class SamePadding(nn.Conv2d):
    """TensorFlow's: the padding depends on the input's size, and is uneven."""

    def forward(self, x):
        total = max((-(x.shape[-1] // -self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - x.shape[-1], 0)
        return F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), self.weight, self.bias, self.stride)


class Normalized(nn.BatchNorm2d):
    """A BatchNorm with its activation inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        if not self.training:
            out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
            return self.act(out)
        return self.act(super().forward(x))


@pytest.mark.parametrize("kind", [Standardized, SamePadding])
def test_a_convolution_of_its_own_kind_is_quantized_as_what_it_computes(kind):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 2, bias=False), Normalized(4), kind(4, 4, 3, 2), Normalized(4))
    net = with_statistics(Net(body))
    made = insert_quantizers(net, SPEC, RECIPE)
    assert isinstance(made.get_submodule("body.2"), QuantConv2d)
    assert all(isinstance(made.get_submodule(path), nn.Identity) for path in ("body.1", "body.3"))
    assert isinstance(made.get_submodule("body.3.act"), nn.ReLU)
    with torch.no_grad():
        torch.testing.assert_close(made(images()), net(images()), rtol=1e-4, atol=1e-5)
    assert "Pad" not in exported_ops(made)


def test_a_linear_layers_batchnorm_over_a_flattened_batch_is_folded():
    class Levit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm, self.fc = nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.linear(x.flatten(1, 2))
            return self.fc(self.norm(x.flatten(0, 1)).reshape_as(x)[:, 0])

    net = with_statistics(Levit())
    made = insert_quantizers(net, SPEC, RECIPE)
    assert isinstance(made.norm, nn.Identity)
    with torch.no_grad():
        torch.testing.assert_close(made(images()), net(images()))


def test_a_batchnorm_before_its_convolution_stays_and_is_exported_as_arithmetic():
    net = with_statistics(Net(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3))))
    assert list(reasons(net)) == ["body.0"]
    operators = exported_ops(insert_quantizers(net, SPEC, RECIPE))
    assert "BatchNormalization" not in operators
    assert operators[:3] == ["Mul", "Add", "Relu"]


class Undecided(nn.Module):
    """What it computes depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        out = self.conv(x)
        return out if x.sum() > 0 else -out + out.mean()


def test_a_module_that_can_not_be_traced_is_one_node_whose_layers_are_quantized():
    found = derived(Net(Undecided()))
    swaps = {swap.path: swap.to for swap in found.swaps}
    assert swaps["body.conv"] == "qzoo.quant.modules:QuantConv2d"
    (left,) = found.network.left_in_float
    assert left.path == "body"
    assert "`return out if x.sum() > 0 else -out + out.mean()`" in left.reason


def test_a_network_whose_own_forward_can_not_be_traced_is_refused_with_the_line():
    class Whole(Net):
        def forward(self, x):
            if x.sum() > 0:
                x = -x
            return super().forward(x)

    with pytest.raises(
        SpecError, match=r"net: the forward of Whole .*`if x.sum\(\) > 0:`.*placement=\"declared\""
    ) as raised:
        insert_quantizers(Whole(Block()).eval(), SPEC, RECIPE)
    assert raised.value.exit_code == 8


def test_a_network_that_computes_something_else_when_it_is_traced_is_refused():
    class Moody(Net):
        def forward(self, x):
            # a tracer's value is no tensor
            return super().forward(x if isinstance(x, torch.Tensor) else x * 0.5)

    with pytest.raises(SpecError, match=r"output 0 of the derived network differs by \d"):
        insert_quantizers(Moody(Block()).eval(), SPEC, RECIPE)


def test_a_value_that_is_changed_in_place_is_read_as_changed():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gain = nn.Conv2d(3, 4, 3), nn.Parameter(torch.tensor(0.5))

        def forward(self, x):
            out = self.conv(x)
            out.mul_(self.gain)
            out.add_(F.relu(out))
            return out

    net = Net(InPlace()).eval()
    made = insert_quantizers(net, SPEC, RECIPE)
    assert isinstance(made.get_submodule("body.add"), QuantAdd)
    with torch.no_grad():
        torch.testing.assert_close(made(images()), net(images()))


def test_explicit_points_of_a_block_stay_its_own():
    class Explicit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.product = nn.Conv2d(3, 4, 3), Matmul()

        def forward(self, x):
            out = self.conv(x)
            return self.product(out, out.transpose(2, 3))

    made = insert_quantizers(Net(Explicit()).eval(), SPEC, RECIPE)
    assert isinstance(made.get_submodule("body.product"), QuantMatmul)


def test_the_network_that_was_given_is_left_as_it_was():
    net = with_statistics(Net(Block()))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    insert_quantizers(net, SPEC, RECIPE)
    assert "body.add" not in dict(net.named_modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_weights_that_were_computed_in_every_call_are_named():
    torch.manual_seed(0)
    net = Net(nn.Sequential(Standardized(3, 4, 3), SamePadding(4, 4, 3)))
    found = derived(net).network
    assert found.computed == {"body.0.weight"}
    assert not torch.equal(found.state_dict()["body.0.weight"], net.state_dict()["body.0.weight"])
    assert torch.equal(found.state_dict()["body.1.weight"], net.state_dict()["body.1.weight"])


def test_a_pooling_that_only_a_subtraction_reads_stays_in_float():
    class Mixer(nn.Module):
        """Poolformer's (Yu et al. 2022, arXiv:2111.11418, section 3.2)."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 1, 1, count_include_pad=False)

        def forward(self, x):
            x = self.conv(x)
            return self.pool(x) - x

    assert reasons(Net(Mixer())) == {"body.pool": "nothing that computes in integers reads it"}
