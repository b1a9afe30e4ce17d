"""The best buckets for lengths, exactly, by dynamic programming.

The best bucket boundaries are among the lengths that occur (each rounded up to the granularity): a bucket that is
larger than the longest item that it serves can be made smaller. So for the sorted lengths l_1 < ... < l_m

    best(k, j) = min over i < j of best(k - 1, i) + cost(l_j) * (items from l_(i+1) to l_j)

The i that attains it never falls as j grows (the cost of a run satisfies the quadrangle inequality, because cost(l)
does not fall), so the smaller and the larger half of the j's share the candidates: O(k m log m) instead of O(k m^2).
F. F. Yao, Efficient dynamic programming using quadrangle inequalities, STOC 1980.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence


def best(lengths: Sequence[int], counts: Sequence[int], most: int, cost: Callable[[int], int]) -> list[int]:
    """At most `most` of the sorted, distinct `lengths`, so that the sum over all items of cost(bucket) is least.

    The largest is always among them. Whole numbers throughout, so the result is exact.
    """
    costs = [cost(length) for length in lengths]
    before = [0, *itertools.accumulate(counts)]
    totals = [costs[j] * before[j + 1] for j in range(len(lengths))]
    choices: list[list[int]] = []
    for buckets in range(2, min(most, len(lengths)) + 1):
        totals, chosen = _layer(totals, costs, before, buckets)
        choices.append(chosen)
    found, j = [lengths[-1]], len(lengths) - 1
    for chosen in reversed(choices):
        j = chosen[j]
        found.append(lengths[j])
    return found[::-1]


def _layer(
    totals: Sequence[int], costs: Sequence[int], before: Sequence[int], buckets: int
) -> tuple[list[int], list[int]]:
    """best(buckets, j) for each j and the i that attains it, from best(buckets - 1, i)."""
    first = buckets - 1  # with fewer lengths than buckets there is nothing to choose
    following, chosen = list(totals), [0] * len(totals)
    waiting = [(first, len(totals) - 1, first - 1, len(totals) - 1)]
    while waiting:
        low, high, least, most = waiting.pop()
        if low > high:
            continue
        j = (low + high) // 2
        candidates = range(least, min(most, j - 1) + 1)
        i = min(candidates, key=lambda i: totals[i] + costs[j] * (before[j + 1] - before[i + 1]))
        following[j], chosen[j] = totals[i] + costs[j] * (before[j + 1] - before[i + 1]), i
        waiting += [(low, j - 1, least, i), (j + 1, high, i, most)]
    return following, chosen
