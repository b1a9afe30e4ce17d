"""What an item of a size costs the device: its elements, or the FLOP of a transformer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from compile.buckets.sizes import Size


@dataclass(frozen=True)
class Cost:
    """of(size): whole numbers, never smaller for a larger size. `statement` says what is counted."""

    name: str
    statement: str
    of: Callable[[Size], int]


def elements() -> Cost:
    """The elements of one input: n, or height x width. Right where the work grows with the size (convolutions)."""
    return Cost("elements", "elements of the input (linear in the length, or in height x width)", math.prod)


def flops(hidden: int, patch: int | None = None) -> Cost:
    """FLOP of one transformer layer of width d for n tokens: 24 n d^2 + 4 n^2 d.

    Four projections of d x d and an MLP of d x 4d are 12 n d^2 multiplications and as many additions; scores and
    weighted sum are 2 n^2 d of each. How many layers there are does not change a ratio. A picture has a token for each
    patch and one more (the class).
    """

    def of(size: Size) -> int:
        n = size[0] if patch is None else math.prod(-(-side // patch) for side in size) + 1
        return 24 * n * hidden**2 + 4 * n**2 * hidden

    tokens = "" if patch is None else f", n = patches of {patch} x {patch} + 1"
    return Cost("flops", f"FLOP of a transformer layer, 24 n d^2 + 4 n^2 d with d = {hidden}{tokens}", of)
