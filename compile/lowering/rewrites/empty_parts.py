"""Concatenations with tensors that have no entries, as the first call of a cache makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite


class EmptyParts(FunctionRewrite):
    """``torch.cat([cache, keys])`` where the cache is empty, as transformers' are in a model that keeps none."""

    name = "empty_parts"
    operators = frozenset({"cat", "concat", "concatenate"})
    why = "the graph would hold a constant without entries"
    cost = "nothing"

    def apply(self, _: Call, tensors: Sequence[Tensor], dim: int = 0, **others: Any) -> Any:
        """The parts that have entries; a copy also of a single one, as cat makes it."""
        kept = [tensor for tensor in tensors if tensor.numel()]
        same = {tensor.dtype for tensor in kept} == {_promoted(tensors)}  # without the empty ones, too
        return torch.cat(kept, dim) if len(kept) < len(tensors) and same and not others else NOT_MINE


def _promoted(tensors: Sequence[Tensor]) -> torch.dtype | None:
    if not tensors:
        return None
    found = tensors[0].dtype
    for tensor in tensors[1:]:
        found = torch.promote_types(found, tensor.dtype)
    return found
