"""Reading by index: positions that are known become slices or a selection, few positions that are data a one-hot
product."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from compile.lowering.operator_names import bound, is_whole, places_of, tensors
from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left
from compile.lowering.selections import is_mask

# Above this a one-hot product is dearer than leaving the gather to the host.
MOST_FLOPS = 200_000_000


class IndexedReads(FunctionRewrite):
    """``x[i]`` with index tensors, ``gather``, ``take_along_dim`` and ``index_select``."""

    name = "indexed_reads"
    operators = frozenset({"__getitem__", "gather", "take_along_dim", "index_select", "take"})
    why = "aten::index and aten::gather are not supported; index_select by a constant and matmul are"
    cost = "known positions: one selection; data: a product with a one-hot matrix, 2 x positions x length FLOP a column"

    def apply(self, call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        """Exact in either form for finite values."""
        if call.operator == "__getitem__":
            selects = is_mask(args[0]) and not call.is_static(args[0])  # the recorder follows what it selects
            return NOT_MINE if selects else self._item(call, input, args[0])
        if call.operator == "take":
            (index,) = bound(args, kwargs, "index")
            return _selected(input, index) if call.is_static(index) else Left("positions depend on the data")
        return self._along(call, input, *args, **kwargs)

    def _item(self, call: Call, x: Tensor, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if not any(isinstance(part, (Tensor, list)) for part in parts):
            return NOT_MINE
        at = [number for number, part in enumerate(parts) if isinstance(part, (Tensor, list))]
        others_whole = all(is_whole(part) for number, part in enumerate(parts) if number not in at)
        if all(map(call.is_static, tensors(index))):
            return _known(x, parts, at, others_whole, places_of(x)[index])
        indices = [torch.as_tensor(parts[number]) for number in at]
        if any(index.dtype == torch.bool for index in indices):
            return Left("the size of its result depends on the data")
        if any(other is None for other in parts):
            return Left("an index that depends on the data beside None")
        parts = _without_ellipsis(parts, x.dim())
        at = [number for number, part in enumerate(parts) if isinstance(part, (Tensor, list))]
        x = x[tuple(slice(None) if number in at else other for number, other in enumerate(parts))]
        return self._one_of_several(call, x, [n - sum(isinstance(o, int) for o in parts[:n]) for n in at], indices)

    def _one_of_several(self, call: Call, x: Tensor, at: list[int], indices: list[Tensor]) -> Any:
        """Dimensions with an index each: one index of all as one dimension, in front where others stand between."""
        if at != list(range(at[0], at[-1] + 1)):
            x, at = x.permute(at + [dim for dim in range(x.dim()) if dim not in at]), list(range(len(at)))
        first, last = at[0], at[-1]
        lengths = x.shape[first : last + 1]
        flat: Any = 0
        for index, length in zip(indices, lengths, strict=True):
            flat = flat * length + torch.remainder(index, length)
        joined = x.reshape(*x.shape[:first], math.prod(lengths), *x.shape[last + 1 :])
        return self._one_hot(call, joined, first, flat)

    def _along(self, call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if call.operator == "take_along_dim":
            index, dim = bound(args, kwargs, "indices", "dim")
        else:
            dim, index = bound(args, kwargs, "dim", "index")
        if dim is None:
            return Left("it selects from the flattened tensor")
        dim = dim % x.dim()
        if call.operator == "index_select":
            return NOT_MINE if call.is_static(index) else self._one_hot(call, x, dim, index)
        if call.operator == "take_along_dim":
            shape = [max(a, b) for a, b in zip(x.shape, index.shape, strict=True)]
            shape[dim] = index.shape[dim]
            x = x.expand([*shape[:dim], x.shape[dim], *shape[dim + 1 :]])
            index = index.expand(shape)
        if call.is_static(index):
            places = torch.gather(places_of(x), dim, index)
            return _selected(x, places)
        return self._gathered(call, x, dim, index)

    def _one_hot(self, call: Call, x: Tensor, dim: int, index: Tensor) -> Any:
        """x taken at ``index`` along ``dim``, as a product with a one-hot matrix [positions, length]."""
        length = x.shape[dim]
        flops = 2 * x.numel() * max(1, index.numel())
        if flops > MOST_FLOPS and call.operator != "__getitem__":
            return _too_dear(flops)
        positions = torch.remainder(index.reshape(-1, 1), length)
        moved = x.movedim(dim, 0)
        width = math.prod(moved.shape[1:])  # where x has no entry, -1 would be ambiguous
        if flops > MOST_FLOPS:  # a look-up, which stays on the host; no graph file holds aten::index
            flops = 0
            taken = torch.embedding(moved.reshape(length, width), positions)
        elif x.is_floating_point():
            taken = torch.matmul((positions == torch.arange(length)).to(x.dtype), moved.reshape(length, width))
        else:
            chosen = positions == torch.arange(length)
            taken = _whole_numbers(chosen.unsqueeze(-1), moved.reshape(1, length, width), 1)
        call.adds(flops=flops)
        taken = taken.reshape(*index.shape, *moved.shape[1:])
        order = list(range(index.dim(), index.dim() + dim)) + list(range(index.dim()))
        return taken.permute(order + list(range(index.dim() + dim, taken.dim())))

    def _gathered(self, call: Call, x: Tensor, dim: int, index: Tensor) -> Any:
        flops = 2 * index.numel() * x.shape[dim]
        if flops > MOST_FLOPS:
            return _too_dear(flops)
        x = x[tuple(slice(0, size) if number != dim else slice(None) for number, size in enumerate(index.shape))]
        moved, index = x.movedim(dim, -1).unsqueeze(-2), index.movedim(dim, -1).unsqueeze(-1)
        chosen = index == torch.arange(x.shape[dim])
        call.adds(flops=flops)
        if x.is_floating_point():
            return (chosen.to(x.dtype) * moved).sum(-1).movedim(-1, dim)
        return _whole_numbers(chosen, moved, -1).movedim(-1, dim)


def _without_ellipsis(parts: tuple[Any, ...], dimensions: int) -> tuple[Any, ...]:
    """Whole slices in its place."""
    at = next((number for number, part in enumerate(parts) if part is Ellipsis), None)
    if at is None:
        return parts
    return (*parts[:at], *[slice(None)] * (dimensions - len(parts) + 1), *parts[at + 1 :])


def _known(x: Tensor, parts: tuple[Any, ...], at: list[int], others_whole: bool, places: Tensor) -> Tensor:
    """One selection along one dimension where the index has that form, else of the flattened tensor."""
    index = torch.as_tensor(parts[at[0]])
    if len(at) == 1 and others_whole and index.dtype != torch.bool:
        dim, length = at[0], x.shape[at[0]]
        flat = torch.remainder(index.reshape(-1), length)
        return x.index_select(dim, flat).reshape(*x.shape[:dim], *index.shape, *x.shape[dim + 1 :])
    return x.flatten().index_select(0, places.flatten()).reshape(places.shape)


def _selected(x: Tensor, places: Tensor) -> Tensor:
    """The elements at places of the flattened tensor."""
    return x.flatten().index_select(0, torch.remainder(places.flatten(), x.numel())).reshape(places.shape)


def _too_dear(flops: int) -> Left:
    return Left(f"a one-hot product of {flops:,} FLOP; the gather is cheaper on the host")


def _whole_numbers(chosen: Tensor, values: Tensor, dim: int) -> Tensor:
    """The chosen values along a dimension in which one is chosen: a sum of whole numbers, whatever their size."""
    if values.dtype == torch.bool:
        return torch.logical_and(chosen, values).any(dim)
    return torch.where(chosen, values, torch.zeros((), dtype=values.dtype)).sum(dim, dtype=values.dtype)
