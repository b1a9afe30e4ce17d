"""Products of complex numbers, as rotary position embeddings are written: pairs of real numbers throughout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite

_PAIR = "_pair_of_real_numbers"  # attribute of a complex tensor: the real one of shape [..., 2] that it shows


class ComplexProducts(FunctionRewrite):
    """``view_as_complex``, products and ``view_as_real``: a trace drops the complex tensors, which nothing reads."""

    name = "complex_products"
    operators = frozenset({"view_as_complex", "view_as_real", "mul", "multiply", "__mul__", "__rmul__"})
    why = "neither the chip nor a graph file has complex numbers"
    cost = "four products and two sums for each product of complex numbers"

    def apply(self, call: Call, input: Any, other: Any = None) -> Any:  # noqa: A002
        """The same of pairs; what is complex and was made otherwise stays."""
        if call.operator == "view_as_complex":
            return _shown(input)
        if call.operator == "view_as_real":
            return getattr(input, _PAIR, NOT_MINE)
        one, two = _pair(call, input), _pair(call, other)
        if one is not None and two is not None:
            a, b, c, d = one[..., 0], one[..., 1], two[..., 0], two[..., 1]
            return _shown(torch.stack([a * c - b * d, a * d + b * c], -1))
        pair, factor = (one, other) if one is not None else (two, input)
        unknown = isinstance(factor, complex) or (isinstance(factor, Tensor) and factor.is_complex())
        if pair is None or unknown:
            return NOT_MINE
        return _shown(pair * (factor.unsqueeze(-1) if isinstance(factor, Tensor) else factor))


def _shown(pair: Tensor) -> Tensor:
    """The complex tensor that the model's code goes on with, and that it is made of real ones."""
    found = torch.view_as_complex(pair)
    setattr(found, _PAIR, pair)
    return found


def _pair(call: Call, value: Any) -> Tensor | None:
    """The real numbers of a complex tensor, if it was made here or is a constant."""
    if not isinstance(value, Tensor) or not value.is_complex():
        return None
    made: Tensor | None = getattr(value, _PAIR, None)
    return torch.view_as_real(value.resolve_conj()) if made is None and call.is_static(value) else made
