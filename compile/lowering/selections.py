"""Entries that a mask of the data selects, followed until they are written back.

How many there are follows the data, which no graph takes. But what is computed of each entry alone can as well be
computed of the whole tensor, so that `x[mask] += 1` is a choice between two tensors of x's size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_AS = {"truediv": "div", "rtruediv": "div", "rdiv": "div", "radd": "add", "rmul": "mul", "rpow": "pow"}


@dataclass(frozen=True)
class Selection:
    """A tensor as `whole[mask]`, mask being of bool and of whole's shape or the first part of it.

    versions: of the tensor, mask and whole, which a real write into their memory changes.
    """

    mask: Tensor
    whole: Tensor
    versions: tuple[int, ...]


def is_mask(index: Any) -> bool:
    """Whether an index is one mask."""
    return isinstance(index, Tensor) and index.dtype == torch.bool and index.dim() > 0


def by_entry(name: str, given: Sequence[Tensor], selections: Sequence[Selection]) -> bool:
    """Whether a function computes each selected entry alone. given: its tensors; selections: those that it has of them.

    Of floating point only: whole numbers raise where they are divided by zero, perhaps outside of what is selected.
    """
    mask, rest = selections[0].mask, selections[0].whole.dim() - selections[0].mask.dim()
    others = len([tensor for tensor in given if tensor.dim() > rest])
    return (
        is_pointwise(name)
        and others == len(selections)
        and all(one.mask is mask and one.whole.is_floating_point() for one in selections)
        and len({one.whole.dim() for one in selections}) == 1
    )


@functools.cache
def is_pointwise(name: str) -> bool:
    """Whether PyTorch tags an operator of this name so; torch 1.13 has no such tag, and selections stay there."""
    tag, plain = getattr(torch.Tag, "pointwise", None), name.strip("_")
    packet = getattr(torch.ops.aten, _AS.get(plain, plain), None)
    return packet is not None and any(tag in getattr(packet, overload).tags for overload in packet.overloads())
