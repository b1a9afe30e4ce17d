"""Scaled dot-product attention in plain operators, for networks that keep keys and values themselves.

Vaswani et al., Attention Is All You Need, 2017.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, n, width) to (batch, heads, n, width / heads)."""
    batch, n, width = x.shape
    return x.view(batch, n, heads, width // heads).transpose(1, 2)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(query keys^T / sqrt(d) + mask) values with the heads joined again: (batch, n, width)."""
    scores = torch.matmul(query / math.sqrt(query.shape[-1]), keys.transpose(-2, -1))
    if mask is not None:
        scores = scores + mask
    found = torch.matmul(torch.softmax(scores, -1), values)
    batch, heads, n, width = found.shape
    return found.transpose(1, 2).reshape(batch, n, heads * width)
