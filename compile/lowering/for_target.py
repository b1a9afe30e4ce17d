"""A graph as the compiler of a target gets it: lowered, and for Inf1 with its look-ups in a host part in front."""

from __future__ import annotations

from torch import Tensor, nn

from compile.lowering import Prologue, PrologueReport, split
from compile.lowering.config import ALL, Rewriting


def lowered(
    flat: nn.Module, example: tuple[Tensor, ...], target: str, rewriting: Rewriting = ALL, what: str = "The model"
) -> Prologue:
    """The lowered graph as `build` compiles it: for inf1 with its look-ups in a host part in front.

    Raises CompileError when it cannot be lowered, or a rewrite of the user's own fails.
    """
    return parted(rewriting.lower(flat, example, what).module, example, target, rewriting)


def parted(module: nn.Module, example: tuple[Tensor, ...], target: str, rewriting: Rewriting = ALL) -> Prologue:
    """A lowered module in its host part and the part that is compiled; on Inf2 all of it is compiled."""
    if target != "inf1":
        return Prologue(None, module, example, PrologueReport())
    with rewriting.guarded():
        return split(module, example)
