"""PyTorch's attention with its projections and both of its matrix products quantized.

nn.MultiheadAttention computes all of itself in one function, so that nothing in it could be swapped. Here that is
written out: softmax(q k^T / sqrt(D) + mask) v, of H heads of D = E / H channels (Vaswani et al. 2017, arXiv:1706.03762,
section 3.2). L and S are the lengths of the queries and of what they attend to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qzoo.errors import SpecError
from qzoo.quant.modules.graph import QuantMatmul
from qzoo.quant.modules.twin import adopt
from qzoo.quant.modules.weighted import QuantLinear
from qzoo.quant.toolkit import TensorQuantizer

_PACKED, _SEPARATE = ("in_proj_weight",), ("q_proj_weight", "k_proj_weight", "v_proj_weight")


class QuantOutProjection(QuantLinear, nn.modules.linear.NonDynamicallyQuantizableLinear):
    """The linear layer behind the heads, which PyTorch made a class of its own: (..., E) -> (..., E)."""


class QuantMultiheadAttention(nn.MultiheadAttention):
    """An nn.MultiheadAttention that quantizes its inputs, its weights, and what both of its matrix products read.

    Query, key and value have a quantizer each; where they are one tensor, as in self-attention, the three see the same
    and give one pair in the exported graph. The softmax is computed in float.
    """

    query_quantizer: TensorQuantizer
    key_quantizer: TensorQuantizer
    value_quantizer: TensorQuantizer
    in_proj_weight_quantizer: TensorQuantizer
    scores: QuantMatmul
    mixed: QuantMatmul

    @classmethod
    def from_float(cls, module: nn.Module, weight_axis: int | None) -> Self:
        """Make it from the float attention and share its parameters. `weight_axis` is that of `QuantLinear`.

        Raises SpecError for what `extra_keys` says, for another `weight_axis` or another kind of module.
        """
        quantized = adopt(cls, module)
        extra = extra_keys(quantized)
        if extra is not None:
            raise SpecError(
                f"{cls.__name__}: an attention with {extra} can't be quantized; name it in keep_float, as 'NAME*'"
            )
        quantized.out_proj = QuantOutProjection.from_float(quantized.out_proj, weight_axis)
        for name in ("query", "key", "value"):
            setattr(quantized, f"{name}_quantizer", TensorQuantizer("input"))
        for name in _PACKED if quantized._qkv_same_embed_dim else _SEPARATE:  # noqa: SLF001 - PyTorch's own flag
            setattr(quantized, f"{name}_quantizer", TensorQuantizer("weight", weight_axis))
        quantized.scores, quantized.mixed = QuantMatmul(), QuantMatmul()
        return quantized.train(module.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002 - nn.MultiheadAttention's own signature
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002
        is_causal: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[Tensor, Tensor | None]:
        """What nn.MultiheadAttention documents, its shapes and masks included: the result and the weights, or None.

        `is_causal` only says that `attn_mask` is the causal mask. Raises SpecError where it says so of none.
        """
        if is_causal and attn_mask is None:
            raise SpecError(f"{type(self).__name__}: is_causal says that attn_mask is the causal mask; give that, too")
        queries, keys, values = map(self._heads, self._projected(query, key, value))
        scores = self.scores(queries, keys.transpose(-2, -1)) * self.head_dim**-0.5
        weights = torch.softmax(_masked(scores, attn_mask, key_padding_mask), -1)
        weights = F.dropout(weights, self.dropout, self.training)
        result = self.out_proj(self._joined(self.mixed(weights, values)))
        if not need_weights:
            return result, None
        return result, weights.mean(-3) if average_attn_weights else weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """(..., E) each, from what is quantized of the inputs and of the projections' weights."""
        inputs = self.query_quantizer(query), self.key_quantizer(key), self.value_quantizer(value)
        if self._qkv_same_embed_dim:
            weights = _thirds(self.in_proj_weight_quantizer(self.in_proj_weight))
        else:
            weights = [getattr(self, f"{name}_quantizer")(getattr(self, name)) for name in _SEPARATE]
        bias = self.in_proj_bias
        biases: Sequence[Tensor | None] = [None] * 3 if bias is None else _thirds(bias)
        return [F.linear(*given) for given in zip(inputs, weights, biases, strict=True)]

    def _heads(self, x: Tensor) -> Tensor:
        """(N, L, E), (L, N, E) where the batch isn't first, or (L, E) without one -> (N, H, L, D) or (H, L, D)."""
        heads: Tensor = torch.unflatten(x, -1, (self.num_heads, self.head_dim))
        return heads.permute(1, 2, 0, 3) if self._sequence_first(heads) else heads.transpose(-3, -2)

    def _joined(self, heads: Tensor) -> Tensor:
        """The inverse of `_heads`."""
        moved = heads.permute(2, 0, 1, 3) if self._sequence_first(heads) else heads.transpose(-3, -2)
        return moved.flatten(-2)

    def _sequence_first(self, heads: Tensor) -> bool:
        return heads.dim() == 4 and not self.batch_first


def extra_keys(module: nn.MultiheadAttention) -> str | None:
    """Which keys of its own an attention adds to those that it is given; None where it adds none.

    They are what `QuantMultiheadAttention` doesn't compute.
    """
    if module.bias_k is not None:
        return "add_bias_kv"
    return "add_zero_attn" if module.add_zero_attn else None


def _thirds(packed: Tensor) -> list[Tensor]:
    """(3 E, ...) -> those of query, key and value, (E, ...) each."""
    size = packed.shape[0] // 3
    return [packed[start : start + size] for start in (0, size, 2 * size)]


def _masked(scores: Tensor, attn_mask: Tensor | None, key_padding_mask: Tensor | None) -> Tensor:
    """(N, H, L, S) or (H, L, S), with what masks forbid at -inf, and what they add added."""
    batched = scores.dim() == 4
    if attn_mask is not None:
        if batched and attn_mask.dim() == 3:  # (N H, L, S)
            attn_mask = torch.unflatten(attn_mask, 0, (-1, scores.shape[1]))
        scores = scores + _additive(attn_mask, scores)
    if key_padding_mask is not None:  # (N, S), or (S) without a batch
        padding = key_padding_mask[:, None, None] if batched else key_padding_mask
        scores = scores + _additive(padding, scores)
    return scores


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    """A mask to be added: a Boolean one forbids where it is true. Raises SpecError for one of integers."""
    if mask.is_floating_point():
        return mask
    if mask.dtype != torch.bool:
        raise SpecError(f"a mask of {mask.dtype}; an attention takes masks of bool or of floats")
    return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, float("-inf"))
