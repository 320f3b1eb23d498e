"""scaled_dot_product_attention as the operators that it is made of: its two matrix products can be quantized then."""

from __future__ import annotations

import math
import operator

import torch
from torch import fx

from qzoo.quant.derive.rewrite import Rewriting, argument, names, shape_of


def spell_out_attention(rewriting: Rewriting) -> None:
    """softmax(q k^T scale + mask) v, PyTorch's own definition of it (its documentation of the function).

    One that is causal, drops out, or has groups of queries stays one operator, in float.
    """
    for node in list(rewriting.graph.nodes):
        if names(node, "scaled_dot_product_attention"):
            _spell_out(rewriting, node)


def _spell_out(rewriting: Rewriting, node: fx.Node) -> None:
    query, key, value = (argument(node, place, name) for place, name in enumerate(("query", "key", "value")))
    mask = argument(node, 3, "attn_mask")
    unusual = [
        name
        for place, name in ((4, "dropout_p"), (5, "is_causal"), (7, "enable_gqa"))
        if argument(node, place, name, default=False)
    ]
    shape = shape_of(query)
    if unusual or shape is None:
        why = f"it has {', '.join(unusual)}" if unusual else "its shape is not known"
        rewriting.leave(node, "matmul", f"scaled_dot_product_attention is one operator, since {why}")
        return
    scale = argument(node, 6, "scale")
    scale = 1 / math.sqrt(shape[-1]) if scale is None else scale
    scores = rewriting.call(node, torch.matmul, query, rewriting.call(node, torch.transpose, key, -2, -1))
    scores = rewriting.call(node, operator.mul, scores, scale)
    if mask is not None:
        scores = _masked(rewriting, node, scores, mask)
    weights = rewriting.call(node, torch.softmax, scores, -1)
    rewriting.take_place(node, rewriting.call(node, torch.matmul, weights, value))


def _masked(rewriting: Rewriting, node: fx.Node, scores: fx.Node, mask: fx.Node) -> fx.Node:
    known = mask.meta.get("qzoo_value")
    if known is not None and known.dtype == torch.bool:
        kept = rewriting.call(node, torch.logical_not, mask)
        return rewriting.call(node, torch.masked_fill, scores, kept, float("-inf"))
    return rewriting.call(node, operator.add, scores, mask)
