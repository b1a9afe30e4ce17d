"""Padding: ``constant_pad_nd`` is supported, and the other modes are concatenations of slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compile.lowering.operator_names import tensors
from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left


class Pad(FunctionRewrite):
    """``F.pad`` in the modes constant, reflect, replicate and circular."""

    name = "pad"
    operators = frozenset({"pad"})
    why = "aten::pad is not supported; of what it stands for only constant_pad_nd and reflection_pad2d are"
    cost = "nothing; the other modes read and write the tensor once for each padded axis"

    def apply(
        self,
        call: Call,
        input: Tensor,  # noqa: A002 - PyTorch's own argument names
        pad: Sequence[int],
        mode: str = "constant",
        value: float | None = None,
    ) -> Any:
        """``pad`` counts from the last axis, two numbers each, as PyTorch has it."""
        if not all(call.is_static(tensor) for tensor in tensors((pad, value))):
            return Left("its widths or its value depend on the data")
        widths = [int(width) for width in pad]
        if mode == "constant":
            return torch.constant_pad_nd(input, widths, 0.0 if value is None else value)
        if min(widths) < 0:
            return Left(f"negative padding {widths} in mode {mode}")
        if mode not in ("reflect", "replicate", "circular"):
            return NOT_MINE
        for axis in range(len(widths) // 2):
            input = _extend(input, -1 - axis, widths[2 * axis], widths[2 * axis + 1], mode)  # noqa: A001
        return input


def _extend(image: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    length = image.shape[axis]
    if mode == "circular":
        first, last = image.narrow(axis, length - before, before), image.narrow(axis, 0, after)
    elif mode == "reflect":
        first = image.narrow(axis, 1, before).flip(axis)
        last = image.narrow(axis, length - 1 - after, after).flip(axis)
    else:
        first, last = (
            _repeated(image.narrow(axis, place, 1), axis, times) for place, times in ((0, before), (length - 1, after))
        )
    parts = ([first] if before else []) + [image] + ([last] if after else [])
    return torch.cat(parts, axis) if len(parts) > 1 else image


def _repeated(edge: Tensor, axis: int, times: int) -> Tensor:
    shape = list(edge.shape)
    shape[axis] = times
    return edge.expand(shape)
