"""What operators make whose shape a torch cannot tell before it runs them.

torch 1.13.1 has no rule for most of these where tensors have no content, and no torch one for one_hot, whose content
could decide. Formulas: https://docs.pytorch.org/docs/stable/generated/ of Conv2d and ConvTranspose2d.
Standard library and torch alone, from Python 3.10 and torch 1.13 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compile.portable.replay import ValueType

RULES: Mapping[str, Callable[..., ValueType]]


def _type(like: Tensor, shape: Sequence[int]) -> ValueType:
    return ValueType(str(like.dtype).removeprefix("torch."), tuple(shape))


def _convolution(
    *,
    input: Tensor,  # noqa: A002  (names are the schema's)
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool = False,
    output_padding: Sequence[int] = (0,),
    groups: int,
    **_: Any,
) -> ValueType:
    sizes = input.shape[2:]
    if not weight.dim() == input.dim() > 2 or groups < 1:
        raise ValueError(f"a weight of shape {list(weight.shape)} in {groups} groups for {list(input.shape)}")
    into, made = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        into, made = weight.shape[0], weight.shape[1] * groups
    steps, pads, apart, more = (_each(value, len(sizes)) for value in (stride, padding, dilation, output_padding))
    if into != input.shape[1] or min(steps + apart) < 1 or min(pads + more) < 0:
        raise ValueError(
            f"stride {stride}, padding {padding}, dilation {dilation}, {input.shape[1]} channels of {into}"
        )
    spatial = []
    for size, width, step, pad, gap, extra in zip(sizes, weight.shape[2:], steps, pads, apart, more, strict=True):
        kernel = gap * (width - 1) + 1
        forward = (size + 2 * pad - kernel) // step + 1
        spatial.append((size - 1) * step - 2 * pad + kernel + extra if transposed else forward)
    if min(spatial) < 1:
        raise ValueError(f"a kernel of {list(weight.shape[2:])} in {list(sizes)}")
    return _type(input, [input.shape[0], made, *spatial])


def _each(value: Sequence[int], dimensions: int) -> list[int]:
    return [*value] * dimensions if len(value) == 1 else [*value]


def _convolution_mode(*, weight: Tensor, padding: str, dilation: Sequence[int], **given: Any) -> ValueType:
    """A padding of "same" keeps the sizes, and takes a stride of 1 alone."""
    made = _convolution(weight=weight, padding=(0,), dilation=dilation, **given)
    if padding == "valid":
        return made
    if padding != "same" or any(step != 1 for step in given["stride"]):
        raise ValueError(f"padding {padding!r} with stride {given['stride']}")
    return ValueType(made.dtype, (*made.shape[:2], *given["input"].shape[2:]))


def _max_unpool2d(*, self: Tensor, indices: Tensor, output_size: Sequence[int]) -> ValueType:
    if self.shape != indices.shape or len(output_size) != 2 or min(output_size) < 1:
        raise ValueError(f"output_size {list(output_size)} for {list(self.shape)} and {list(indices.shape)}")
    return _type(self, [*self.shape[:-2], *output_size])


def _one_hot(*, self: Tensor, num_classes: int = -1) -> ValueType:
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}: the content would decide over the shape")
    return ValueType("int64", (*self.shape, num_classes))


def _repeat_interleave(*, self: Tensor, repeats: int, dim: int | None = None, **_: Any) -> ValueType:
    if repeats < 0:
        raise ValueError(f"repeats is {repeats}")
    shape = [self.numel()] if dim is None else list(self.shape)
    shape[dim or 0] *= repeats
    return _type(self, shape)


def _cdist(*, x1: Tensor, x2: Tensor, **_: Any) -> ValueType:
    if min(x1.dim(), x2.dim()) < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"points of shapes {list(x1.shape)} and {list(x2.shape)}")
    batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])  # type: ignore[no-untyped-call]
    return _type(x1, [*batch, x1.shape[-2], x2.shape[-2]])


RULES = {
    "aten::_convolution": _convolution,
    "aten::_convolution_mode": _convolution_mode,
    "aten::cdist": _cdist,
    "aten::max_unpool2d": _max_unpool2d,
    "aten::one_hot": _one_hot,
    "aten::repeat_interleave.self_int": _repeat_interleave,
}
