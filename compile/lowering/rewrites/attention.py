"""Scaled dot product attention as two products and a softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from compile.lowering.rewrite import Call, FunctionRewrite, Left

# Its exponential is exactly 0 beside any ordinary score, float16 can hold it, and 0 times it is 0 (not so for -inf).
MASKED = -30000.0


class ScaledDotProductAttention(FunctionRewrite):
    """``F.scaled_dot_product_attention`` with boolean or additive mask, ``is_causal``, ``scale`` and ``enable_gqa``."""

    name = "scaled_dot_product_attention"
    operators = frozenset({"scaled_dot_product_attention"})
    why = "aten::scaled_dot_product_attention is not supported"
    cost = "no FLOP more; the scores [.., queries, keys] are a tensor of the graph"

    def apply(  # noqa: PLR0913, PLR0917 - PyTorch's own arguments
        self,
        call: Call,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """softmax(query key^T scale + mask) value; query [.., L, E], key [.., S, E], value [.., S, V]."""
        if dropout_p != 0.0:
            return Left(f"dropout_p is {dropout_p}: a random draw in every inference")
        if not call.is_static(scale):
            return Left("its scale depends on the data")
        if enable_gqa:
            key, value = (_repeat_heads(heads, query.shape[-3]) for heads in (key, value))
        query = query * (1.0 / math.sqrt(max(1, query.shape[-1])) if scale is None else scale)
        scores = torch.matmul(query, key.transpose(-2, -1))
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is None:
            return torch.matmul(torch.softmax(scores, -1), value)
        return torch.matmul(_masked_softmax(call, scores, attn_mask), value)


def _repeat_heads(heads: Tensor, wanted: int) -> Tensor:
    """[.., H, S, E] -> [.., wanted, S, E], each head wanted / H times in a row."""
    *batch, present, length, width = heads.shape
    groups = heads.unsqueeze(-3).expand(*batch, present, wanted // present, length, width)
    return groups.reshape(*batch, wanted, length, width)


def _masked_softmax(call: Call, scores: Tensor, mask: Tensor) -> Tensor:
    """softmax with False or -inf closed. Rows that are closed entirely give 0, as PyTorch's safe softmax does."""
    is_bool = mask.dtype == torch.bool
    closed = torch.logical_not(mask) if is_bool else mask == -math.inf
    if not call.is_static(mask):
        scores = scores if is_bool else scores + mask.masked_fill(closed, 0.0)
        return torch.softmax(scores.masked_fill(closed, MASKED), -1).masked_fill(closed, 0.0)
    bias = torch.zeros(mask.shape, dtype=scores.dtype) if is_bool else mask
    weights = torch.softmax(scores + bias.masked_fill(closed, MASKED), -1)
    closed_rows = closed.all(-1, keepdim=True)
    return weights * torch.logical_not(closed_rows).to(scores.dtype) if bool(closed_rows.any()) else weights
