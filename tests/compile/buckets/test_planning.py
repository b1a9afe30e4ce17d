"""The planners against brute force: exact for lengths and for shapes, within the bound for pictures."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile.buckets import aspect, cost, one_dimension, planning, two_dimensions
from compile.buckets.sizes import Histogram, Size, collected, rounded_up
from compile.errors import CompileError
from inference_code.tasks.resize import ResizeRule

LENGTHS = st.dictionaries(st.integers(1, 60), st.integers(1, 50), min_size=1, max_size=9)


def served(counts: dict[int, int], buckets: list[int], price: object) -> int:
    assert callable(price)
    return sum(count * min(price(bucket) for bucket in buckets if bucket >= n) for n, count in counts.items())


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 5), st.sampled_from([lambda n: n, lambda n: n * n + 7, lambda n: 5]))
def test_no_choice_of_lengths_is_better(counts: dict[int, int], most: int, price: object) -> None:
    assert callable(price)
    lengths = sorted(counts)
    found = one_dimension.best(lengths, [counts[n] for n in lengths], most, price)
    assert found == sorted(set(found))
    assert len(found) <= most
    # Any set of bucket sizes at all, not only of lengths that occur, as long as it holds the longest.
    others = itertools.chain.from_iterable(
        itertools.combinations(lengths[:-1], k) for k in range(min(most, len(lengths)))
    )
    best = min(served(counts, [*some, lengths[-1]], price) for some in others)
    assert served(counts, found, price) == best


def test_a_bucket_between_two_lengths_is_never_needed() -> None:
    counts = {3: 5, 7: 1, 10: 2}
    (found,) = {tuple(one_dimension.best([3, 7, 10], [5, 1, 2], 2, lambda n: n))}
    least = min(served(counts, [*some, 10], lambda n: n) for some in itertools.combinations(range(1, 10), 1))
    assert served(counts, list(found), lambda n: n) == least


def test_many_lengths_are_planned_in_time_and_as_by_the_plain_recurrence() -> None:
    chance = random.Random(1)
    counts = {n: chance.randrange(1, 1000) for n in chance.sample(range(1, 2000), 300)}
    lengths = sorted(counts)
    values = [counts[n] for n in lengths]
    before = [0, *itertools.accumulate(values)]
    totals = [lengths[j] * before[j + 1] for j in range(len(lengths))]
    for _ in range(5):
        totals = [
            min([totals[j], *(totals[i] + lengths[j] * (before[j + 1] - before[i + 1]) for i in range(j))])
            for j in range(len(lengths))
        ]
    found = one_dimension.best(lengths, values, 6, lambda n: n)
    assert served(counts, found, lambda n: n) == totals[-1]


def pictures(chance: random.Random, count: int, side: int) -> Histogram:
    return collected(
        ((chance.randrange(1, side), chance.randrange(1, side)), chance.randrange(1, 30)) for _ in range(count)
    )


def work(sizes: Histogram, buckets: list[Size]) -> float:
    """The elements computed; infinite where a size fits none."""
    total = 0.0
    for (height, width), count in sizes.counts.items():
        fits = [h * w for h, w in buckets if height <= h and width <= w]
        total += count * min(fits, default=math.inf)
    return total


def best_by_brute_force(sizes: Histogram, most: int) -> float:
    heights, widths = ({size[axis] for size in sizes.counts} for axis in (0, 1))
    candidates = list(itertools.product(heights, widths))
    sets = itertools.chain.from_iterable(itertools.combinations(candidates, k) for k in range(1, most + 1))
    return min(work(sizes, list(some)) for some in sets)


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_pictures_keep_the_proven_bound(most: int, seed: int) -> None:
    sizes = pictures(random.Random(seed), 6, 12)
    found = two_dimensions.choose(sizes, most, math.prod)
    assert 1 <= len(found) <= most
    one, best, ours = work(sizes, [sizes.largest]), best_by_brute_force(sizes, most), work(sizes, found)
    assert best <= ours < math.inf
    assert one - ours >= two_dimensions.proven(most) * (one - best) - 1e-9
    if most == 1:
        assert ours == best


def test_the_bound_is_that_of_the_theorem() -> None:
    assert [round(two_dimensions.proven(n), 3) for n in (1, 2, 3, 4, 8)] == [1, 0.5, 0.556, 0.578, 0.607]
    assert two_dimensions.proven(10_000) == pytest.approx(1 - 1 / math.e, abs=1e-4)


def test_pictures_of_both_orientations_need_no_bucket_that_holds_both() -> None:
    sizes = Histogram({(480, 640): 10, (640, 480): 7})
    assert two_dimensions.choose(sizes, 2, math.prod) == [(480, 640), (640, 480)]
    assert two_dimensions.choose(sizes, 1, math.prod) == [(640, 640)]


def test_too_many_different_pictures_name_the_way_out() -> None:
    sizes = Histogram({(n, 5000 - n): 1 for n in range(1, 3000)})
    with pytest.raises(CompileError, match="--multiple-of"):
        two_dimensions.choose(sizes, 2, math.prod)
    with pytest.raises(CompileError, match="common number"):
        two_dimensions.choose(Histogram({(10**6, 10**6): 10**12}), 1, math.prod)


SQUARE = ResizeRule(56, 14)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_no_choice_of_shapes_squeezes_less(most: int, seed: int) -> None:
    sizes = pictures(random.Random(seed), 8, 400)
    shapes = sorted({SQUARE.size(*size) for size in sizes.counts})

    def penalty(buckets: list[Size]) -> float:
        return sum(
            count * min(abs(math.log(h / w * b[1] / b[0])) for b in buckets) for (h, w), count in sizes.counts.items()
        )

    found = aspect.plan(sizes, most, SQUARE).best.buckets
    assert len(found) <= most
    sets = itertools.chain.from_iterable(itertools.combinations(shapes, k) for k in range(1, most + 1))
    assert penalty(found) == pytest.approx(min(penalty(list(some)) for some in sets))


def test_common_photographs_get_the_sizes_of_the_reference() -> None:
    photographs = Histogram({(3000, 4000): 5, (4000, 3000): 3, (1080, 1920): 4, (800, 800): 1})
    found = aspect.plan(photographs, 4, ResizeRule(518, 14))
    assert sorted(found.best.buckets) == [(518, 518), (518, 686), (518, 924), (686, 518)]
    assert found.best.most < 0.01
    assert found.one.buckets == [(518, 518)]
    assert found.one.most == pytest.approx(16 / 9 - 1)
    assert sum(load.items for load in found.even.loads) == photographs.items


def test_evenly_spaced_is_what_the_note_of_aws_shows() -> None:
    """Its two examples: pictures from 400 to 800 in four buckets, lengths from 0 to 128 in two."""
    images = Histogram({(400, 400): 1, (800, 800): 1})
    assert planning.evenly_spaced(images, 4, 1) == [(500, 500), (600, 600), (700, 700), (800, 800)]
    assert planning.evenly_spaced(Histogram({(1,): 1, (128,): 1}), 2, 64) == [(128,)]
    assert planning.evenly_spaced(Histogram({(2,): 1, (128,): 1}), 2, 1) == [(65,), (128,)]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 4), st.sampled_from([1, 8, 14]))
def test_the_plan_wastes_least_of_the_three(counts: dict[int, int], most: int, multiple: int) -> None:
    sizes = Histogram({(n,): count for n, count in sorted(counts.items())})
    found = planning.plan(sizes, most, multiple, cost.elements())
    assert 0 <= found.best.waste <= found.even.waste <= 1
    assert found.best.waste <= found.one.waste
    assert all(side % multiple == 0 for size in found.best.buckets for side in size)
    assert sum(load.items for load in found.best.loads) == sizes.items
    own = sum(n * count for n, count in counts.items())
    assert sum(load.own for load in found.best.loads) == own
    assert found.best.waste == pytest.approx(1 - own / found.best.served)


def test_the_costs() -> None:
    assert cost.elements().of((480, 640)) == 480 * 640
    # By hand for n = 3, d = 2: four projections and an MLP of 4d, then scores and sum, each product two FLOP.
    assert cost.flops(2).of((3,)) == 2 * (4 * 3 * 2 * 2 + 2 * 3 * 2 * 8) + 2 * (2 * 3 * 3 * 2)
    assert cost.flops(2, patch=14).of((28, 42)) == cost.flops(2).of((7,))


def test_the_quadratic_part_moves_the_buckets() -> None:
    sizes = Histogram({(100,): 10, (900,): 60, (1000,): 1})
    assert planning.plan(sizes, 2, 1, cost.elements()).best.buckets == [(100,), (1000,)]
    assert planning.plan(sizes, 2, 1, cost.flops(1)).best.buckets == [(900,), (1000,)]
    assert planning.plan(sizes, 2, 1, cost.flops(10_000)).best.buckets == [(100,), (1000,)]


def test_rounding_up() -> None:
    assert rounded_up((518, 519), 14) == (518, 532)
