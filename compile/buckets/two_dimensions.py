"""Buckets for pictures: a greedy choice with a proven bound, then improved as long as that helps.

Choosing the best rectangles is hard in general, so: begin with the one bucket U that holds everything (the largest
height by the largest width), and add, one after the other, the bucket that saves most. Candidates are all pairs of a
height and a width that occur (rounded up to the granularity), among which the best set is.

**The bound.** Let saved(S) be what a set S saves against serving everything in U, with U always at hand. saved is
monotone and submodular: a bucket saves no more when others are there already. So after k greedy steps
saved >= (1 - (1 - 1/N)^k) * (the most that any N buckets save): Nemhauser, Wolsey and Fisher, An analysis of
approximations for maximizing submodular set functions, Mathematical Programming 14 (1978). U takes one of the N places,
so k = N - 1 and the share that is proven is 1 - (1 - 1/N)^(N - 1): 0.5 for N = 2, 0.578 for 4, towards 1 - 1/e = 0.632.
One bucket alone is exact: it is U.

**The improvement** (never worse): replace one bucket by the candidate that then saves most, U too where the others
need not all of it, until no replacement helps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compile.buckets.sizes import Histogram, Size
from compile.errors import CompileError

Whole = npt.NDArray[np.int64]

_MOST_WORK = 2 * 10**9  # candidates x sizes of one pass; about half a minute
_MOST_SWEEPS = 20
_EXACT = 2**62


def proven(buckets: int) -> float:
    """The share of the best possible saving that `buckets` buckets are sure to reach; 1 for one bucket."""
    return 1.0 if buckets == 1 else 1 - (1 - 1 / buckets) ** (buckets - 1)


def choose(sizes: Histogram, most: int, cost: Callable[[Size], int]) -> list[Size]:
    """At most `most` buckets that hold every size. Raises CompileError when there are too many different sizes."""
    field = _Field.of(sizes, cost)
    chosen = [field.universal]
    while len(chosen) < most:
        candidate, saved = field.most_saving(field.served(chosen), (0, 0))
        if saved <= 0:
            break
        chosen.append(candidate)
    for _ in range(_MOST_SWEEPS):
        better = _improved(field, chosen)
        if better is None:
            break
        chosen = better
    used = field.used(chosen)
    return sorted((field.size(one) for one in used), key=lambda size: (cost(size), size))


def _improved(field: _Field, chosen: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
    """`chosen` with one bucket replaced by a better one; None when there is none."""
    now = field.total(field.served(chosen))
    for place in range(len(chosen)):
        others = chosen[:place] + chosen[place + 1 :]
        served = field.served(others)
        candidate, _ = field.most_saving(served, field.needed(served))
        changed = [*others, candidate]
        if field.total(field.served(changed)) < now:
            return changed
    return None


@dataclass(frozen=True)
class _Field:
    """The sizes as indices into the heights and widths that occur; costs[h, w] of each candidate.

    A bucket is a pair of indices. nobody: the universal bucket's cost; `served` has more for a size that none holds.
    """

    heights: Whole
    widths: Whole
    rows: Whole
    columns: Whole
    counts: Whole
    costs: Whole
    nobody: int

    @classmethod
    def of(cls, sizes: Histogram, cost: Callable[[Size], int]) -> _Field:
        pairs = np.array(list(sizes.counts), np.int64)
        heights, rows = np.unique(pairs[:, 0], return_inverse=True)
        widths, columns = np.unique(pairs[:, 1], return_inverse=True)
        if len(heights) * len(widths) * len(pairs) > _MOST_WORK:
            raise CompileError(
                f"There are {len(pairs)} different sizes of {len(heights)} heights and {len(widths)} widths, which "
                "takes too long.",
                "Give a coarser granularity, such as --multiple-of 32.",
            )
        most = cost((int(heights[-1]), int(widths[-1])))
        if most * sizes.items >= _EXACT:
            raise CompileError(
                f"The cost of all items together is beyond {_EXACT}.", "Divide the counts by a common number."
            )
        values = [[cost((int(height), int(width))) for width in widths] for height in heights]
        counts = np.array(list(sizes.counts.values()), np.int64)
        return cls(heights, widths, rows.reshape(-1), columns.reshape(-1), counts, np.array(values, np.int64), most)

    @property
    def universal(self) -> tuple[int, int]:
        return len(self.heights) - 1, len(self.widths) - 1

    def size(self, bucket: tuple[int, int]) -> Size:
        return int(self.heights[bucket[0]]), int(self.widths[bucket[1]])

    def held(self, bucket: tuple[int, int]) -> npt.NDArray[np.bool_]:
        return (self.rows <= bucket[0]) & (self.columns <= bucket[1])

    def served(self, buckets: Sequence[tuple[int, int]]) -> Whole:
        """The cost of each size; without a bucket that holds it, one more than the universal bucket's."""
        found = np.full(len(self.counts), self.nobody + 1, np.int64)
        for bucket in buckets:
            found = np.where(self.held(bucket), np.minimum(found, self.costs[bucket]), found)
        return found

    def total(self, served: Whole) -> int:
        return int((served * self.counts).sum())

    def needed(self, served: Whole) -> tuple[int, int]:
        """The least bucket that holds what nothing else does."""
        left = served > self.nobody
        return (int(self.rows[left].max()), int(self.columns[left].max())) if left.any() else (0, 0)

    def most_saving(self, served: Whole, least: tuple[int, int]) -> tuple[tuple[int, int], int]:
        """The candidate, at least as large as `least`, that lowers the cost most, and by how much."""
        found, most = self.universal, -1
        for row in range(least[0], len(self.heights)):
            inside = self.rows <= row
            columns, order = self.columns[inside], self.costs[row, least[1] :]
            gains = np.maximum(served[inside][None, :] - order[:, None], 0) * self.counts[inside][None, :]
            holds = columns[None, :] <= np.arange(least[1], len(self.widths))[:, None]
            saved = (gains * holds).sum(1)
            column = int(saved.argmax())
            if saved[column] > most:
                found, most = (row, column + least[1]), int(saved[column])
        return found, most

    def used(self, buckets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The buckets that serve something, each no larger than what it serves needs."""
        served, used = self.served(buckets), []
        left: Any = np.ones(len(self.counts), bool)
        for bucket in sorted(set(buckets), key=lambda one: int(self.costs[one])):
            mine = left & self.held(bucket) & (served == self.costs[bucket])
            if mine.any():
                used.append((int(self.rows[mine].max()), int(self.columns[mine].max())))
                left = left & ~mine
        return used
