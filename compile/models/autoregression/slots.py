"""Places of a fixed-length cache, named by one-hot rows, so that nothing is indexed and nothing is written in place.

A slot is float32 (batch, places), 1 at one place and 0 elsewhere: exact in every precision. Masks are added to scores;
they use a finite value that float16 can hold, because -inf times 0 is NaN and float16 ends at 65504. exp(HIDDEN - any
score of a real network) is 0 in float32, as exp(-inf) is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HIDDEN = -30000.0


def one_hot(place: int, places: int, batch: int) -> Tensor:
    """The slot of one place for every row of a batch, float32 (batch, places)."""
    slot = torch.zeros(batch, places)
    slot[:, place] = 1.0
    return slot


def cache(shape: Sequence[int], filled: int = 0, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """cache_keys and cache_values of this shape: drawn for the first `filled` places, 0 behind them."""
    found = {}
    for name in ("cache_keys", "cache_values"):
        found[name] = torch.zeros(shape) if generator is None else torch.randn(shape, generator=generator)
        found[name][:, :, :, filled:] = 0
    return found


def written(cache: Tensor, slot: Tensor, new: Tensor) -> Tensor:
    """`cache` (batch, heads, places, width) with `new` (batch, heads, 1, width) at the slot."""
    here = slot[:, None, :, None]
    return cache * (1 - here) + new * here


def reached(slot: Tensor, triangle: Tensor) -> Tensor:
    """(batch, places): 1 up to and including the slot. `triangle` is lower_triangle(places)."""
    return torch.matmul(slot, triangle)


def lower_triangle(places: int) -> Tensor:
    """(places, places) float32: row p has ones at 0 to p."""
    return torch.ones(places, places).tril()


def hidden_unless(visible: Tensor) -> Tensor:
    """What to add to scores (batch, heads, queries, places) so that only places with a 1 in `visible` are seen.

    visible: float32 (batch, places) of 0 and 1.
    """
    return ((1 - visible) * HIDDEN)[:, None, None, :]
