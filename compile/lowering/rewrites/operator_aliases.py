"""Other names of supported operators, and small composites of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite
from compile.lowering.rewrites.activations import exp_minus_one


def _unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim = dim % x.dim()
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def _reshape_as(x: Tensor, other: Tensor) -> Tensor:
    return x.reshape(other.shape)


def _transposed(x: Tensor, dim0: Any, dim1: Any) -> Tensor:
    return x.transpose(dim0, dim1)


def _matrix_transposed(x: Tensor) -> Tensor:
    return x.transpose(-2, -1)


def _reversed_axes(x: Tensor) -> Tensor:
    return x.permute(*range(x.dim() - 1, -1, -1))


def _narrow(x: Tensor, dim: int, start: int, length: int) -> Any:
    if isinstance(start, Tensor):
        return NOT_MINE
    start = start % x.shape[dim] if start < 0 else start
    return x[(slice(None),) * (dim % x.dim()) + (slice(start, start + length),)]


def _bitwise_not(x: Tensor) -> Any:
    return torch.logical_not(x) if x.dtype == torch.bool else NOT_MINE


def _logical(name: str) -> Callable[[Any, Any], Any]:
    function = getattr(torch, f"logical_{name}")

    def form(x: Any, other: Any) -> Any:
        if (
            not isinstance(x, Tensor)
            or not isinstance(other, Tensor)
            or x.dtype != torch.bool
            or other.dtype != torch.bool
        ):
            return NOT_MINE
        return function(x, other)

    return form


def _square(x: Tensor) -> Tensor:
    return x * x


def _var(x: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 0 if unbiased is False else 1
    dims = tuple(range(x.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    count = 1
    for one in dims:
        count *= x.shape[one]
    if count - correction <= 0:
        return NOT_MINE
    centred = x - x.mean(dims, keepdim=True)
    return (centred * centred).sum(dims, keepdim=keepdim) / (count - correction)


def _std(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    variance = _var(x, *args, **kwargs)
    return variance if variance is NOT_MINE else torch.sqrt(variance)


def _cat(parts: Any, dim: int = 0, axis: int | None = None) -> Tensor:
    return torch.cat(list(parts), dim if axis is None else axis)


def _tile(x: Tensor, *dims: Any) -> Tensor:
    sizes = list(dims[0]) if dims and isinstance(dims[0], (list, tuple)) else list(dims)
    return x.repeat([1] * (x.dim() - len(sizes)) + sizes)


def _addcmul(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    product = tensor1 * tensor2
    return x + (product if value == 1 else product * value)


def _addcdiv(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    quotient = tensor1 / tensor2
    return x + (quotient if value == 1 else quotient * value)


def _lerp(x: Tensor, end: Tensor, weight: Any) -> Any:
    return x + weight * (end - x)


def _pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    *batch, channels, height, width = x.shape
    r = downscale_factor
    parts = x.reshape(-1, channels, height // r, r, width // r, r).permute(0, 1, 3, 5, 2, 4)
    return parts.reshape(*batch, channels * r * r, height // r, width // r)


def _channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, *rest = x.shape
    return x.reshape(batch, groups, channels // groups, *rest).transpose(1, 2).reshape(x.shape)


def _rms_norm(x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(-len(tuple(normalized_shape)), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scaled: Tensor = x * torch.rsqrt((x * x).mean(dims, keepdim=True) + eps)
    return scaled if weight is None else scaled * weight


def _log_sum_exp(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    top = torch.amax(x, dims, keepdim=True)
    total = torch.log(torch.exp(x - top).sum(dims, keepdim=True)) + top
    return total if keepdim else total.amax(dims)


def _log_plus_one(x: Tensor) -> Tensor:
    """log(1 + x) with the rounding of 1 + x corrected for."""
    moved = x + 1.0
    return torch.where(moved == 1.0, x, torch.log(moved) * x / (moved - 1.0))


def _first_as_2d(pool: Callable[..., Tensor]) -> Callable[..., Any]:
    """A pooling of one axis as one of two, the first of them of length one."""

    def form(x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, *args: Any, **kwargs: Any) -> Any:
        def pair(value: Any, first: int) -> tuple[int, int]:
            return (first, int(value[0] if isinstance(value, (list, tuple)) else value))

        if kwargs.pop("return_indices", False):
            return NOT_MINE
        args = tuple(
            pair(arg, 1) if pool is torch.max_pool2d and number == 0 else arg for number, arg in enumerate(args)
        )
        if "dilation" in kwargs:
            kwargs["dilation"] = pair(kwargs["dilation"], 1)
        stride = kernel_size if stride is None or stride in ([], ()) else stride
        return pool(x.unsqueeze(-2), pair(kernel_size, 1), pair(stride, 1), pair(padding, 0), *args, **kwargs).squeeze(
            -2
        )

    return form


class Names(FunctionRewrite):
    """Each entry: PyTorch's name -> the same in operators of the table, exact up to rounding."""

    name = "names"
    forms: ClassVar[dict[str, Callable[..., Any]]] = {
        "unflatten": _unflatten,
        "reshape_as": _reshape_as,
        "view_as": _reshape_as,
        "ravel": lambda x: x.flatten(),
        "swapaxes": _transposed,
        "swapdims": _transposed,
        "moveaxis": torch.movedim,
        "mT": _matrix_transposed,
        "T": _reversed_axes,
        "narrow": _narrow,
        "bitwise_not": _bitwise_not,
        "__invert__": _bitwise_not,
        "bitwise_and": _logical("and"),
        "bitwise_or": _logical("or"),
        "bitwise_xor": _logical("xor"),
        "__or__": _logical("or"),
        "__xor__": _logical("xor"),
        "square": _square,
        "var": _var,
        "std": _std,
        "concat": _cat,
        "concatenate": _cat,
        "hstack": lambda parts: torch.cat(list(parts), 0 if parts[0].dim() == 1 else 1),
        "vstack": lambda parts: torch.cat([part if part.dim() > 1 else part.reshape(1, -1) for part in parts], 0),
        "tile": _tile,
        "addcmul": _addcmul,
        "addcdiv": _addcdiv,
        "lerp": _lerp,
        "outer": lambda x, vec2: x.unsqueeze(1) * vec2,
        "pixel_unshuffle": _pixel_unshuffle,
        "channel_shuffle": _channel_shuffle,
        "rms_norm": _rms_norm,
        "logsumexp": _log_sum_exp,
        "max_pool1d": _first_as_2d(torch.max_pool2d),
        "avg_pool1d": _first_as_2d(torch.nn.functional.avg_pool2d),
        "multiply": torch.mul,
        "subtract": torch.sub,
        "divide": torch.div,
        "negative": torch.neg,
        "absolute": torch.abs,
        "greater": torch.gt,
        "greater_equal": torch.ge,
        "less": torch.lt,
        "less_equal": torch.le,
        "not_equal": torch.ne,
        "fix": torch.trunc,
        "minimum": lambda x, other: torch.where(x < other, x, other),
        "maximum": lambda x, other: torch.where(x > other, x, other),
        "log1p": _log_plus_one,
        "expm1": exp_minus_one,
    }
    operators = frozenset(forms)
    why = "the operator table lists these computations under another name, or only what they are made of"
    cost = "nothing for other names; a few element-wise operators for composites"

    def apply(self, call: Call, *args: Any, **kwargs: Any) -> Any:
        """The supported form."""
        for key in ("input", "self"):
            if key in kwargs:
                args = (kwargs.pop(key), *args)
        return self.forms[call.operator](*args, **kwargs)
