"""Operators that write into their argument, in their functional form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compile.lowering.operator_names import AUGMENTED, writes
from compile.lowering.rewrite import NOT_MINE, Call, FunctionRewrite, Left


def _fill(target: Tensor, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(target.dtype).expand(target.shape).clone()
    return torch.full_like(target, value)


SPECIAL: dict[str, Callable[..., Tensor]] = {
    "fill_": _fill,
    "zero_": torch.zeros_like,
    "copy_": lambda target, source, _non_blocking=False: _fill(target, source),
    "hardtanh_": functional.hardtanh,
    "clamp_": torch.clamp,
    "clip_": torch.clamp,
}


# Change the shape of a tensor, not its values.
RESHAPING = frozenset({"unsqueeze_", "squeeze_", "t_", "transpose_", "swapaxes_", "swapdims_"})


# Written by chance, or with another memory or size behind the same tensor: no value can stand for it.
_RANDOM = "it is random, which no answer may be"
STAYING = {
    **dict.fromkeys(("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_"), _RANDOM),
    **dict.fromkeys(("random_", "uniform_"), _RANDOM),
    **dict.fromkeys(("resize_", "resize_as_"), "it gives the tensor another size"),
    "embedding_renorm_": "it changes a table by what is looked up in it, so that one request changes the next",
}


def functional_form(operator: str) -> Callable[..., Any] | None:
    """The function that computes what an in-place operator writes, or None when PyTorch has none of that name."""
    if operator in SPECIAL:
        return SPECIAL[operator]
    name = AUGMENTED.get(operator, operator[:-1])
    for home in (Tensor, torch, functional, torch._C._nn):
        found = getattr(home, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    return None


class InPlace(FunctionRewrite):
    """``x.op_(...)``, ``x += y`` and ``inplace=True``: compute the value, and let it stand for ``x`` from then on.

    Only where nothing else shares the memory of ``x``; otherwise the write stays.
    """

    name = "in_place"
    operators = frozenset(
        name
        for home in (Tensor, torch, functional, torch._C._nn)
        for name in dir(home)
        if writes(name) and not name.startswith("_") and functional_form(name) is not None
    ) | frozenset((*AUGMENTED, *STAYING))
    why = "most in-place kinds are not supported (silu_, mul_, copy_, leaky_relu_ ...), and writes hide data flow"
    cost = "nothing"

    def apply(self, call: Call, target: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The value, in the dtype of the target."""
        if call.operator in STAYING:
            return Left(STAYING[call.operator])
        form = functional_form(call.operator)
        if form is None:
            return Left("PyTorch has no functional form of it")
        value = form(target, *args, **kwargs)
        if value is NotImplemented:
            return NOT_MINE
        if call.operator in RESHAPING:
            return call.reshape_in_place(target, value) or value
        if value.shape != target.shape:
            return Left("its result has another shape than its target")
        if value.dtype != target.dtype:
            value = value.to(target.dtype)
        return call.rebind(target, value) or value
