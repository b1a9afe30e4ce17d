"""The plan: buckets by the histogram, beside evenly spaced ones and a single one, with the waste of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compile.buckets import one_dimension, two_dimensions
from compile.buckets.cost import Cost
from compile.buckets.sizes import Histogram, Size, rounded_up
from compile.errors import CompileError

# https://awsdocs-neuron.readthedocs-hosted.com/en/latest/general/appnotes/torch-neuron/bucketing-app-note.html
EVEN_RULE = "AWS's bucketing note: the range from the smallest to the largest size in equal steps"


@dataclass(frozen=True)
class Load:
    """One bucket and what comes to it: items, their own cost, and what the device does for them."""

    bucket: Size
    items: int
    own: int
    served: int

    @property
    def waste(self) -> float:
        """The share of the device's work, 0 to 1, that no item needed."""
        return 1 - self.own / self.served if self.served else 0.0


@dataclass(frozen=True)
class BucketSet:
    """Buckets with their loads; every item goes to the cheapest bucket that holds it."""

    loads: tuple[Load, ...]

    @property
    def buckets(self) -> list[Size]:
        return [load.bucket for load in self.loads]

    @property
    def served(self) -> int:
        return sum(load.served for load in self.loads)

    @property
    def waste(self) -> float:
        return 1 - sum(load.own for load in self.loads) / self.served

    def to_json(self) -> dict[str, Any]:
        return {
            "waste": self.waste,
            "served": self.served,
            "buckets": [{**asdict(load), "bucket": list(load.bucket), "waste": load.waste} for load in self.loads],
        }


@dataclass(frozen=True)
class Plan:
    """best: the chosen buckets. even: as many evenly spaced ones. one: a single bucket.

    bound: the share of the best possible saving against one bucket that is proven; 1 where the choice is exact.
    """

    best: BucketSet
    even: BucketSet
    one: BucketSet
    bound: float
    dimensions: int

    def to_json(self) -> dict[str, Any]:
        return {
            "chosen": self.best.to_json(),
            "evenly_spaced": self.even.to_json(),
            "one_bucket": self.one.to_json(),
            "exact": self.bound == 1,
            "proven_share_of_the_best_saving": self.bound,
        }


def plan(sizes: Histogram, most: int, multiple: int, cost: Cost) -> Plan:
    """At most `most` buckets whose sides are multiples of `multiple`. Raises CompileError."""
    rounded = sizes.mapped({size: rounded_up(size, multiple) for size in sizes.counts})
    if sizes.dimensions == 1:
        lengths, counts = [size[0] for size in rounded.counts], list(rounded.counts.values())
        chosen: list[Size] = [(n,) for n in one_dimension.best(lengths, counts, most, lambda n: cost.of((n,)))]
        bound = 1.0
    else:
        chosen, bound = two_dimensions.choose(rounded, most, cost.of), two_dimensions.proven(most)
    best = serve(sizes, chosen, cost)
    even = serve(sizes, evenly_spaced(sizes, most, multiple), cost)
    return Plan(best, even, serve(sizes, [rounded.largest], cost), bound, sizes.dimensions)


def evenly_spaced(sizes: Histogram, count: int, multiple: int) -> list[Size]:
    """EVEN_RULE: smallest + (largest - smallest) * k / count on each side, rounded up to the granularity."""
    pairs = list(zip(sizes.smallest, sizes.largest, strict=True))
    steps = [tuple(low + -(-(high - low) * k // count) for low, high in pairs) for k in range(1, count + 1)]
    return list(dict.fromkeys(rounded_up(step, multiple) for step in steps))


def serve(sizes: Histogram, buckets: Sequence[Size], cost: Cost) -> BucketSet:
    """Send every size to the cheapest bucket that holds it. Raises CompileError for one that none holds."""
    ordered = sorted(buckets, key=lambda bucket: (cost.of(bucket), bucket))
    items, own = dict.fromkeys(ordered, 0), dict.fromkeys(ordered, 0)
    for size, count in sizes.counts.items():
        bucket = next((one for one in ordered if all(a <= b for a, b in zip(size, one, strict=True))), None)
        if bucket is None:
            raise CompileError(f"No bucket holds the size {size}; there are {ordered}.")
        items[bucket] += count
        own[bucket] += count * cost.of(size)
    return BucketSet(tuple(Load(one, items[one], own[one], items[one] * cost.of(one)) for one in ordered))
