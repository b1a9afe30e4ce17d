"""Writing by index: ``buffer[index] = value``, ``index_copy_`` and ``scatter`` as new values of the whole tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compile.lowering.functionalize import written
from compile.lowering.operator_names import as_tensor, is_whole, tensors
from compile.lowering.rewrite import Call, FunctionRewrite, Left

WHOLE = (torch.int64, torch.int32)
# Elements of a mask of positions that are data.
MOST = 10_000_000


class IndexedWrites(FunctionRewrite):
    """``x[i] = v`` and ``scatter``: concatenation for slices, a mask for boolean indices (also for ``x[mask] += 1``),
    one-hot masks for one position, or for one value at several positions, that depend on the data."""

    name = "indexed_writes"
    operators = frozenset({"__setitem__", "index_copy_", "scatter"})
    why = "aten::copy_ into a slice and aten::index_put_ are not supported, and a partitioner cannot follow them"
    cost = "the tensor that is written into is copied once for each write"

    def apply(self, call: Call, target: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The new value stands for the target."""
        if call.operator == "scatter":
            return _scattered(target, *args, **kwargs)
        if call.operator == "index_copy_":
            value = self._copied(call, target, *args, **kwargs)
        else:
            value = self._set(call, target, *args)
        if isinstance(value, Left):
            return value
        left = call.rebind(target, value)
        return left if left is not None else (value if call.operator == "index_copy_" else None)

    def _set(self, call: Call, target: Tensor, index: Any, value: Any) -> Tensor | Left:
        if all(map(call.is_static, tensors(index))):
            return written(target, index, value)
        parts = index if isinstance(index, tuple) else (index,)
        at = [number for number, part in enumerate(parts) if not all(map(call.is_static, tensors(part)))]
        part = parts[at[0]]
        if (len(at) > 1 or len(parts) > 1) and (not isinstance(value, Tensor) or value.numel() == 1):
            mask = _anywhere(target, parts)
            if mask is not None:
                return torch.where(mask, as_tensor(value, target.dtype).reshape(()), target)
        if not isinstance(part, Tensor) or len(at) > 1:
            return Left("it writes to positions that depend on the data in more than one dimension")
        if part.dtype == torch.bool:
            return _masked(call, target, index, value)
        if part.numel() == 1 and all(map(is_whole, (*parts[: at[0]], *parts[at[0] + 1 :]))):
            return _at_position(target, at[0], part, value, keeps_dim=part.dim() > 0)
        return Left("it writes to several positions that depend on the data")

    def _copied(self, call: Call, target: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor | Left:
        if target.dim() == 0:
            return source.reshape(())
        dim = dim % target.dim()
        if call.is_static(index):
            return written(target, (slice(None),) * dim + (index,), source)
        if index.numel() == 1:
            return _at_position(target, dim, index, source, keeps_dim=True)
        return Left("it writes to several positions that depend on the data")


def _anywhere(target: Tensor, parts: tuple[Any, ...]) -> Tensor | None:
    """Where target is written to by whole numbers for each of its first dimensions; one value goes everywhere, so it
    does not matter which write is the last."""
    if not all(isinstance(part, Tensor) and part.dtype in WHOLE for part in parts):
        return None
    indices = torch.broadcast_tensors(*parts)  # type: ignore[no-untyped-call]
    if indices[0].numel() * target.numel() > MOST:
        return None
    mask = torch.ones((), dtype=torch.bool)
    for dim, index in enumerate(indices):
        places = torch.arange(target.shape[dim]).reshape(-1, *[1] * (target.dim() - 1 - dim))
        positions = torch.remainder(index, target.shape[dim]).reshape(-1, *[1] * target.dim())
        mask = torch.logical_and(mask, positions == places)
    return mask.any(0)


def _scattered(target: Tensor, dim: int, index: Tensor, *args: Any, **kwargs: Any) -> Any:
    """``scatter`` of one value, or of one element along ``dim`` of a source: one-hot masks along ``dim``."""
    source = args[0] if args else kwargs.get("src", kwargs.get("value"))
    if source is None or len(args) > 1 or "reduce" in kwargs:
        return Left("it reduces")
    dim = dim % target.dim()
    if any(index.shape[one] != target.shape[one] for one in range(target.dim()) if one != dim):
        return Left("it writes into a part of the other dimensions")
    if isinstance(source, Tensor) and index.shape[dim] != 1:
        return Left("it writes several values along a dimension, of which the last one wins")
    if index.numel() * target.shape[dim] > MOST:
        return Left("the mask of its positions would be larger than the tensor by far")
    places = torch.arange(target.shape[dim])
    mask = (index.movedim(dim, -1).unsqueeze(-2) == places.unsqueeze(-1)).any(-1).movedim(-1, dim)
    if isinstance(source, Tensor):
        source = source[tuple(slice(0, size) for size in index.shape)]
    return torch.where(mask, as_tensor(source, target.dtype), target)


def _masked(call: Call, target: Tensor, mask: Any, value: Any) -> Tensor | Left:
    if not isinstance(mask, Tensor):
        return Left("a mask that depends on the data is combined with another index")
    whole = call.unselected(value, mask)
    if whole is not None and whole.dim() == target.dim():  # as in x[mask] += 1
        value = whole.to(target.dtype)
    elif isinstance(value, Tensor) and value.numel() != 1:
        return Left("it writes as many values as a mask that depends on the data has")
    else:
        value = as_tensor(value, target.dtype).reshape(())
    while mask.dim() < target.dim():
        mask = mask.unsqueeze(-1)
    return torch.where(mask, value, target)


def _at_position(target: Tensor, dim: int, position: Tensor, value: Any, *, keeps_dim: bool) -> Tensor:
    """One position of one dimension, by a one-hot mask; comparing stays in whole numbers."""
    length = target.shape[dim]
    shape = [1] * target.dim()
    shape[dim] = length
    mask = (torch.arange(length) == torch.remainder(position.reshape(1), length)).reshape(shape)
    if isinstance(value, Tensor):
        value = value.to(target.dtype)
        behind = target.dim() - 1 - dim
        if not keeps_dim and value.dim() > behind:
            value = value.unsqueeze(value.dim() - behind)
        return torch.where(mask, value, target)
    return torch.where(mask, torch.full((), value, dtype=target.dtype), target)
