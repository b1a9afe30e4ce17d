"""Sliding windows: which element goes where follows from the shapes, so a window is one selection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compile.lowering.operator_names import places_of, tensors
from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left


class Windows(FunctionRewrite):
    """``Tensor.unfold``, ``F.unfold`` (im2col), ``F.fold`` (col2im) and ``as_strided``."""

    name = "windows"
    operators = frozenset({"unfold", "fold", "as_strided"})
    why = "aten::unfold, im2col, col2im and as_strided are not supported; index_select by a constant is"
    cost = "the positions as a constant, 8 bytes for each element of a channel's windows; fold also adds its overlaps"

    def apply(self, call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        """Exact, but for the order in which ``fold`` adds."""
        if any(True for _ in tensors((args, kwargs))):
            return Left("its windows depend on the data")
        if call.operator == "as_strided":
            return _strided(call, input, *args, **kwargs)
        if call.operator == "fold":
            return _folded(call, input, *args, **kwargs)
        if {"kernel_size", "stride"} & kwargs.keys():  # F.unfold announces itself with all of its arguments
            return _columns(call, input, *args, **kwargs)
        return _slid(call, input, *args, **kwargs)


def _take(call: Call, flat: Tensor, dim: int, places: Tensor) -> Tensor:
    call.adds(bytes_=places.numel() * places.element_size())
    return flat.index_select(dim, places.flatten())


def _slid(call: Call, x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """[.., L, ..] -> [.., windows, .., size]."""
    dim = dimension % x.dim()
    places = torch.arange(x.shape[dim]).unfold(0, size, step)
    before, after = x.shape[:dim], x.shape[dim + 1 :]
    windows = _take(call, x, dim, places).reshape(*before, *places.shape, *after).movedim(dim + 1, -1)
    call.follow(windows, x, Tensor.unfold, dim, size, step)
    return windows


def _places(height: int, width: int, *window: Any) -> Tensor:
    """[kernel, windows]: which pixel each window reads; -1 in the padding."""
    pixels = torch.arange(1, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    return functional.unfold(pixels, *window)[0].long() - 1


def _columns(call: Call, x: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """[N, C, H, W] -> [N, C x kernel, windows]; padding reads a column of zeros that is put behind the image."""
    if x.dim() != 4:
        return NOT_MINE
    batch, channels, height, width = x.shape
    places = _places(height, width, kernel_size, dilation, padding, stride)
    flat = x.flatten(2)
    if bool((places < 0).any()):
        flat = torch.constant_pad_nd(flat, [0, 1])
        places = torch.where(places < 0, height * width, places)
    return _take(call, flat, 2, places).reshape(batch, channels * places.shape[0], places.shape[1])


def _folded(
    call: Call, x: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """[N, C x kernel, windows] -> [N, C, H, W]: as many selections as windows overlap, added."""
    if x.dim() != 3:
        return NOT_MINE
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    targets = _places(height, width, kernel_size, dilation, padding, stride)
    kernel, windows = targets.shape
    sources: list[list[int]] = [[] for _ in range(height * width)]
    for source, target in enumerate(targets.flatten().tolist()):
        if target >= 0:
            sources[target].append(source)
    most = max(1, *map(len, sources))
    nothing = kernel * windows
    places = torch.tensor([one + [nothing] * (most - len(one)) for one in sources]).t()
    batch, channels = x.shape[0], x.shape[1] // kernel
    flat = x.reshape(batch, channels, kernel * windows)
    if bool((places == nothing).any()):
        flat = torch.constant_pad_nd(flat, [0, 1])
    taken = _take(call, flat, 2, places.contiguous()).reshape(batch, channels, most, height, width)
    call.adds(flops=batch * channels * (most - 1) * height * width)
    return taken.sum(2) if most > 1 else taken.squeeze(2)


def _strided(call: Call, x: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Any:
    span = 1 + sum((length - 1) * step for length, step in zip(x.shape, x.stride(), strict=True))
    memory = torch.full((span,), -1)
    memory.as_strided(x.shape, x.stride()).copy_(places_of(x))
    start = 0 if storage_offset is None else storage_offset - x.storage_offset()
    try:
        places = memory.as_strided(tuple(size), tuple(stride), start)
    except RuntimeError:
        return Left("it reads memory outside of the tensor")
    if bool((places < 0).any()):
        return Left("it reads memory between the elements of the tensor")

    def view(base: Tensor) -> Tensor:
        return base.reshape(-1).index_select(0, places.reshape(-1)).reshape(tuple(size))

    call.adds(bytes_=places.numel() * places.element_size())
    read = view(x)
    if x.is_contiguous():
        call.follow(read, x, Tensor.as_strided, size, stride, start)
    else:
        call.follow(read, x, view)
    return read
