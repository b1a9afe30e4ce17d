"""Vector norms out of sums, squares and maxima."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left


class VectorNorms(FunctionRewrite):
    """``Tensor.norm``, ``torch.linalg.vector_norm``, ``linalg.norm`` of vectors and ``F.normalize``, for orders 1, 2,
    p, inf and -inf."""

    name = "vector_norms"
    operators = frozenset({"norm", "linalg_vector_norm", "linalg_norm", "normalize", "frobenius_norm"})
    why = (
        "aten::linalg_vector_norm is not supported; which operator a norm traces to differs between versions of PyTorch"
    )
    cost = "one to three element-wise operators"

    def apply(self, call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        """sum(|x|^p)^(1/p) over the dimensions, the order as a number."""
        if call.operator == "normalize":
            return _normalized(input, *args, **kwargs)
        order, dim, keepdim, known = _arguments(call.operator, *args, **kwargs)
        if not known:
            return Left("a matrix norm, or arguments that this rewrite does not know")
        if input.is_complex() or isinstance(order, Tensor):
            return Left("complex numbers, or an order that depends on the data")
        return vector_norm(input, order, dim, keepdim)


def _arguments(operator: str, *args: Any, **kwargs: Any) -> tuple[Any, Any, bool, bool]:
    names = ("dim", "keepdim") if operator == "frobenius_norm" else ("p", "dim", "keepdim")
    given = {
        **dict(zip(names, args, strict=False)),
        **{"p" if key == "ord" else key: value for key, value in kwargs.items()},
    }
    order, dim, keepdim = given.pop("p", 2), given.pop("dim", None), bool(given.pop("keepdim", False))
    dtype, out = given.pop("dtype", None), given.pop("out", None)
    if order in (None, "fro"):
        return 2, dim, keepdim, not (given or dtype is not None or out is not None)
    # An order other than 2 over two dimensions is a matrix norm in linalg.norm.
    matrix = operator == "linalg_norm" and not (
        isinstance(dim, int) or (isinstance(dim, (tuple, list)) and len(dim) == 1)
    )
    return order, dim, keepdim, not (given or matrix or isinstance(order, str) or dtype is not None or out is not None)


def vector_norm(x: Tensor, order: float, dim: Any, keepdim: bool) -> Any:
    """The norm over one or several dimensions (None: all)."""
    dims = tuple(range(x.dim())) if dim is None or dim == [] else (dim,) if isinstance(dim, int) else tuple(dim)
    if not dims:
        return NOT_MINE
    if order == 2:
        return torch.sqrt((x * x).sum(dims, keepdim=keepdim))
    magnitude = torch.abs(x)
    if order == 1:
        return magnitude.sum(dims, keepdim=keepdim)
    if math.isinf(order):
        return (torch.amax if order > 0 else torch.amin)(magnitude, dims, keepdim=keepdim)
    if order == 0:
        return NOT_MINE
    return torch.pow(torch.pow(magnitude, order).sum(dims, keepdim=keepdim), 1.0 / order)


def _normalized(x: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
    if out is not None:
        return Left("it writes into a given tensor")
    norm = vector_norm(x, p, dim, keepdim=True)
    return norm if norm is NOT_MINE else x / torch.clamp(norm, min=eps)
