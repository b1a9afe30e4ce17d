"""Views: how a value written into one becomes the new value of the tensor that it is a view of, and writing by index
in general."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compile.lowering.operator_names import as_tensor, bound, places_of, tensors

Back = Callable[[Tensor, Tensor], Tensor]  # (base, value written into the view) -> new base

# Views that keep all elements in the same order.
_REARRANGED = ("view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "view_as", "reshape_as", "ravel")
_SAME = (
    *("contiguous", "to", "type", "float", "double", "half", "bfloat16", "type_as", "detach", "data", "dropout"),
    "alias",
)
_SAME_ORDER = frozenset(_REARRANGED + _SAME)


def back(  # noqa: PLR0911 - one for each operator
    operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], place: int
) -> Back | None:
    """The way back through a view operator, ``place`` being the number of the result, or None when there is none."""
    if operator in _SAME_ORDER:
        return lambda base, value: value.reshape(base.shape)
    if operator in ("transpose", "swapaxes", "swapdims"):
        return lambda _, value: value.transpose(*args, **kwargs)
    if operator == "t":
        return lambda _, value: value.t()
    if operator == "mT":
        return lambda _, value: value.transpose(-2, -1)
    if operator == "T":
        return lambda base, value: value.permute(*range(base.dim() - 1, -1, -1))
    if operator == "permute":
        order = tuple(args[0] if args and isinstance(args[0], (list, tuple)) else args or kwargs["dims"])
        return lambda base, value: value.permute(sorted(range(len(order)), key=lambda at: order[at] % base.dim()))
    if operator in ("unfold", "as_strided"):
        return lambda base, value: _selected(base, getattr(places_of(base), operator)(*args), value)
    index = _index_of(operator, args, kwargs, place)
    return None if index is None else lambda base, value: written(base, index(base), value)


def _along(dim: int, part: Any, base: Tensor) -> tuple[Any, ...]:
    return (slice(None),) * (dim % base.dim()) + (part,)


def _index_of(  # noqa: PLR0911 - one for each operator
    operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], place: int
) -> Callable[[Tensor], Any] | None:
    """The index of the base that a view operator of this name selects."""
    if any(True for _ in tensors((args, kwargs))):
        return None
    if operator == "__getitem__":
        return lambda _: args[0]
    if operator == "select":
        dim, number = bound(args, kwargs, "dim", "index")
        return functools.partial(_along, dim, number)
    if operator == "narrow":
        dim, start, length = bound(args, kwargs, "dim", "start", "length")
        return functools.partial(_along, dim, slice(start, start + length))
    if operator == "unbind":
        return functools.partial(_along, args[0] if args else kwargs.get("dim", 0), place)
    if operator in ("chunk", "split"):
        return functools.partial(_part, operator, args, kwargs, place)
    return None


def _part(operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], place: int, base: Tensor) -> Any:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % base.dim()
    parts = getattr(places_of(base), operator)(*args, **kwargs)
    start = sum(part.shape[dim] for part in parts[:place])
    return _along(dim, slice(start, start + parts[place].shape[dim]), base)


def written(base: Tensor, index: Any, value: Any) -> Tensor:
    """What ``base[index] = value`` makes of base, for an index without data of the inputs; base is not changed.

    Slices become concatenations; any other index a selection and a mask (one gather of base's size).
    """
    places = places_of(base)[index]
    value = as_tensor(value, base.dtype)
    while value.dim() > places.dim() and value.shape[0] == 1:  # PyTorch drops leading ones
        value = value.reshape(value.shape[1:])
    value = value.expand(places.shape)
    ranges = _ranges(base, index)
    if ranges is not None:
        return _placed(base, ranges, value.reshape([stop - start for start, stop in ranges]), 0)
    return _selected(base, places, value)


def _ranges(base: Tensor, index: Any) -> list[tuple[int, int]] | None:
    """(start, stop) for each dimension of base, when the index consists of whole numbers and slices without a step."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(part, (Tensor, list, bool)) for part in parts):
        return None
    parts = [part for part in parts if part is not None]
    if parts.count(Ellipsis) > 1:  # what follows the second one means something else in each release of PyTorch
        return None
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (base.dim() - len(parts) + 1)
    parts += [slice(None)] * (base.dim() - len(parts))
    ranges = []
    for part, length in zip(parts, base.shape, strict=True):
        start, stop, step = part.indices(length) if isinstance(part, slice) else (part % length, part % length + 1, 1)
        if step != 1:
            return None
        ranges.append((start, max(start, stop)))
    return ranges


def _placed(base: Tensor, ranges: list[tuple[int, int]], value: Tensor, dim: int) -> Tensor:
    while dim < base.dim() and ranges[dim] == (0, base.shape[dim]):
        dim += 1
    if dim == base.dim():
        return value
    start, stop = ranges[dim]
    if start == stop:
        return base
    middle = _placed(base.narrow(dim, start, stop - start), ranges, value, dim + 1)
    before = [base.narrow(dim, 0, start)] if start else []
    behind = [base.narrow(dim, stop, base.shape[dim] - stop)] if stop < base.shape[dim] else []
    parts = [*before, middle, *behind]
    return torch.cat(parts, dim) if len(parts) > 1 else middle


def _selected(base: Tensor, places: Tensor, value: Tensor) -> Tensor:
    """The value's elements at the given places of base (the last one wins), base elsewhere."""
    if places.numel() == 0:
        return base
    source = torch.full((base.numel(),), -1, dtype=torch.int64)
    for number, place in enumerate(places.flatten().tolist()):
        source[place] = number
    mask = (source >= 0).reshape(base.shape)
    chosen = value.flatten().index_select(0, source.clamp(min=0)).reshape(base.shape)
    return torch.where(mask, chosen, base)
