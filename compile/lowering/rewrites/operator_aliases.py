"""Other names of supported operators, and small composites of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite
from compile.lowering.rewrites.activations import exp_minus_one


def _unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim = dim % x.dim()
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def _narrow(x: Tensor, dim: int, start: int, length: int) -> Any:
    if isinstance(start, Tensor):
        return NOT_MINE
    start = start % x.shape[dim] if start < 0 else start
    return x[(slice(None),) * (dim % x.dim()) + (slice(start, start + length),)]


def _logical(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A bitwise operator where all that it takes is boolean."""

    def form(*operands: Any, **other: Any) -> Any:
        is_mine = all(isinstance(one, Tensor) and one.dtype == torch.bool for one in (*operands, *other.values()))
        return function(*operands, **other) if is_mine else NOT_MINE

    return form


def _fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """x + value * function(tensor1, tensor2)."""

    def form(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
        found = function(tensor1, tensor2)
        return x + (found if value == 1 else found * value)

    return form


def _var(x: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 0 if unbiased is False else 1
    dims = tuple(range(x.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    count = math.prod(x.shape[one] for one in dims)
    if count - correction <= 0:
        return NOT_MINE
    centred = x - x.mean(dims, keepdim=True)
    return (centred * centred).sum(dims, keepdim=keepdim) / (count - correction)


def _std(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    variance = _var(x, *args, **kwargs)
    return variance if variance is NOT_MINE else torch.sqrt(variance)


def _tile(x: Tensor, *dims: Any) -> Tensor:
    sizes = list(dims[0]) if dims and isinstance(dims[0], (list, tuple)) else list(dims)
    return x.repeat([1] * (x.dim() - len(sizes)) + sizes)


def _pixel_unshuffle(x: Tensor, downscale_factor: int) -> Any:
    if not x.numel():  # which PyTorch gives back as it is
        return NOT_MINE
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


def _log_sum_exp(x: Tensor, dim: Any, keepdim: bool = False) -> Any:
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if not x.numel():  # no entry has a maximum
        return NOT_MINE
    top = torch.amax(x, dims, keepdim=True)
    total = torch.log(torch.exp(x - top).sum(dims, keepdim=True)) + top
    return total if keepdim else total.amax(dims)


def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Any:
    """Euclidean distances; of more than 25 points by a product, as PyTorch does by default.

    The product is at::_euclidean_dist's own (aten/src/ATen/native/Distance.cpp): the nearest of many stays the nearest.
    """
    few = max(x1.shape[-2], x2.shape[-2]) <= 25
    by_product = {"use_mm_for_euclid_dist": True, "donot_use_mm_for_euclid_dist": False}.get(
        compute_mode or "", not few
    )
    if p != 2 or not (few or by_product):
        return NOT_MINE
    if by_product:
        own, others = ((x * x).sum(-1, keepdim=True) for x in (x1, x2))
        left = torch.cat([x1 * -2.0, own, torch.ones_like(own)], -1)
        right = torch.cat([x2, torch.ones_like(others), others], -1)
        return torch.sqrt(torch.clamp(torch.matmul(left, right.transpose(-2, -1)), min=0.0))
    apart = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    return torch.sqrt((apart * apart).sum(-1))


def _nan_to_num(x: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Any:
    """Infinities become the largest numbers of the dtype where nothing else is named."""
    if not x.is_floating_point():
        return NOT_MINE
    limits = torch.finfo(x.dtype)
    x = x.masked_fill(x != x, 0.0 if nan is None else nan)  # noqa: PLR0124  (NaN equals nothing)
    x = x.masked_fill(x == math.inf, limits.max if posinf is None else posinf)
    return x.masked_fill(x == -math.inf, limits.min if neginf is None else neginf)


def _compared_to_infinity(compare: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor], Any]:
    return lambda x: compare(x.abs(), math.inf) if x.is_floating_point() else NOT_MINE


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
        if pool is torch.max_pool2d and args:  # its dilation
            args = (pair(args[0], 1), *args[1:])
        if "dilation" in kwargs:
            kwargs["dilation"] = pair(kwargs["dilation"], 1)
        stride = kernel_size if stride is None or stride in ([], ()) else stride
        sizes = (pair(kernel_size, 1), pair(stride, 1), pair(padding, 0))
        return pool(x.unsqueeze(-2), *sizes, *args, **kwargs).squeeze(-2)

    return form


class Names(FunctionRewrite):
    """Each entry: PyTorch's name -> the same in operators of the table, exact up to rounding."""

    name = "names"
    forms: ClassVar[dict[str, Callable[..., Any]]] = {
        "unflatten": _unflatten,
        **dict.fromkeys(("reshape_as", "view_as"), lambda x, other: x.reshape(other.shape)),
        "ravel": lambda x: x.flatten(),
        **dict.fromkeys(("swapaxes", "swapdims"), torch.transpose),
        "moveaxis": torch.movedim,
        "mT": lambda x: x.transpose(-2, -1),
        "T": lambda x: x.permute(*range(x.dim() - 1, -1, -1)),
        "narrow": _narrow,
        **dict.fromkeys(("bitwise_not", "__invert__"), _logical(torch.logical_not)),
        "bitwise_and": _logical(torch.logical_and),
        **dict.fromkeys(("bitwise_or", "__or__"), _logical(torch.logical_or)),
        **dict.fromkeys(("bitwise_xor", "__xor__"), _logical(torch.logical_xor)),
        "square": lambda x: x * x,
        "var": _var,
        "std": _std,
        **dict.fromkeys(
            ("concat", "concatenate"),
            lambda parts, dim=0, axis=None: torch.cat(list(parts), dim if axis is None else axis),
        ),
        "hstack": lambda parts: torch.cat(list(parts), 0 if parts[0].dim() == 1 else 1),
        "vstack": lambda parts: torch.cat([part if part.dim() > 1 else part.reshape(1, -1) for part in parts], 0),
        "tile": _tile,
        "addcmul": _fused(torch.mul),
        "addcdiv": _fused(torch.div),
        "lerp": lambda x, end, weight: x + weight * (end - x),
        "outer": lambda x, vec2: x.unsqueeze(1) * vec2,
        "pixel_unshuffle": _pixel_unshuffle,
        "channel_shuffle": _channel_shuffle,
        "rms_norm": _rms_norm,
        "logsumexp": _log_sum_exp,
        "max_pool1d": _first_as_2d(torch.max_pool2d),
        "avg_pool1d": _first_as_2d(torch.nn.functional.avg_pool2d),
        **{"multiply": torch.mul, "subtract": torch.sub, "divide": torch.div, "negative": torch.neg},
        **{"absolute": torch.abs, "greater": torch.gt, "greater_equal": torch.ge, "less": torch.lt},
        **{"less_equal": torch.le, "not_equal": torch.ne, "fix": torch.trunc},
        "minimum": lambda x, other: torch.where(x < other, x, other),
        "maximum": lambda x, other: torch.where(x > other, x, other),
        "cdist": _cdist,
        "nan_to_num": _nan_to_num,
        "isinf": _compared_to_infinity(torch.eq),
        "isfinite": _compared_to_infinity(torch.lt),
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
