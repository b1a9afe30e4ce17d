"""Dropout of whole channels, which inference has switched off."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compile.lowering.rewrite import Call, FunctionRewrite, Left


class DropoutOff(FunctionRewrite):
    """``F.dropout2d``, ``F.alpha_dropout`` and their like when not training: the tensor itself."""

    name = "dropout_off"
    operators = frozenset({"feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
    why = "aten::dropout is supported, which does nothing at inference; feature_dropout and alpha_dropout are not"
    cost = "nothing; one operator less"

    def apply(self, _: Call, input: Tensor, p: float = 0.5, training: bool = True, *__: Any, **___: Any) -> Any:  # noqa: A002
        """The input."""
        if training and p > 0.0:
            return Left(f"it is on, with probability {p}: a random draw in every inference")
        return input
