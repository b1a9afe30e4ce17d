"""Buckets for pictures that are resized, not padded: the shapes that squeeze them least, exactly.

The task depth-estimation sends a picture to the bucket of the nearest shape and stretches it to fit. The candidates are
the sizes that the model's own preprocessing gives to the pictures of the histogram, so a picture whose candidate is
chosen is not squeezed beyond what the reference does. A picture's penalty is |log(its aspect ratio / the
bucket's)|; it goes to the nearest on a line, so between two neighbouring buckets only these two count, and

    best(k, j) = min over i < j of best(k - 1, i) + (penalty between the shapes i and j)

is exact (k medians on a line).
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compile.buckets.sizes import Histogram, Size
from compile.errors import CompileError
from inference_code.tasks.resize import ResizeRule, aspect_distortion, nearest


@dataclass(frozen=True)
class Squeezed:
    """One bucket, the pictures that come to it, and by which factor minus 1 they are squeezed: on average, at most."""

    bucket: Size
    items: int
    mean: float
    most: float


@dataclass(frozen=True)
class ShapeSet:
    """Buckets by their aspect ratio, with what comes to each."""

    loads: tuple[Squeezed, ...]

    @property
    def buckets(self) -> list[Size]:
        return [load.bucket for load in self.loads]

    @property
    def mean(self) -> float:
        return sum(load.items * load.mean for load in self.loads) / sum(load.items for load in self.loads)

    @property
    def most(self) -> float:
        return max(load.most for load in self.loads)

    def to_json(self) -> dict[str, Any]:
        loads = [{**asdict(load), "bucket": list(load.bucket)} for load in self.loads]
        return {"mean_squeeze": self.mean, "largest_squeeze": self.most, "buckets": loads}


@dataclass(frozen=True)
class ShapePlan:
    """best: the chosen shapes. even: as many, evenly spaced in the logarithm of the ratio. one: the square."""

    best: ShapeSet
    even: ShapeSet
    one: ShapeSet

    def to_json(self) -> dict[str, Any]:
        rules = {"chosen": self.best, "evenly_spaced": self.even, "one_bucket": self.one}
        return {**{name: rule.to_json() for name, rule in rules.items()}, "exact": True}


def plan(pictures: Histogram, most: int, rule: ResizeRule) -> ShapePlan:
    """At most `most` shapes for pictures. Raises CompileError for lengths."""
    if pictures.dimensions != 2:
        raise CompileError("The sizes are lengths; only pictures are resized.", "Leave out --shorter-side.")
    shapes = sorted({rule.size(*size) for size in pictures.counts}, key=_log)
    counted = sorted((_log(size), count) for size, count in pictures.counts.items())
    chosen: list[Size] = [shapes[i] for i in _best([_log(shape) for shape in shapes], counted, most)]
    low, high = counted[0][0], counted[-1][0]
    steps = [low + (high - low) * (2 * k + 1) / (2 * most) for k in range(most)]  # the middles of equal parts
    even: list[Size] = list(dict.fromkeys(rule.size(*_of_ratio(math.exp(step))) for step in steps))
    return ShapePlan(*(_served(pictures, buckets, rule) for buckets in (chosen, even, [rule.size(1, 1)])))


def _of_ratio(ratio: float) -> Size:
    """A large picture of this height / width."""
    return (round(100_000 * ratio), 100_000) if ratio > 1 else (100_000, round(100_000 / ratio))


def _log(size: Size) -> float:
    return math.log(size[0] / size[1])


def _served(pictures: Histogram, buckets: Sequence[Size], rule: ResizeRule) -> ShapeSet:
    """Send every picture where the handler sends it (to the reference's own size where it is there)."""
    groups: dict[Size, list[tuple[float, int]]] = {bucket: [] for bucket in buckets}
    for size, count in pictures.counts.items():
        picture = (size[0], size[1])
        home = nearest(picture, [(h, w) for h, w in buckets], rule)
        groups[home].append((aspect_distortion(picture, home), count))
    loads = []
    for bucket, found in groups.items():
        items = sum(count for _, count in found)
        mean = sum(one * count for one, count in found) / items if items else 0.0
        loads.append(Squeezed(bucket, items, mean, max((one for one, _ in found), default=0.0)))
    return ShapeSet(tuple(loads))


def _best(shapes: Sequence[float], pictures: Sequence[tuple[float, int]], most: int) -> list[int]:
    """Which of the sorted `shapes`; both arguments are logarithms of aspect ratios, `pictures` with their counts."""
    line = _Line(pictures)
    left = [line.to(-math.inf, at, at) for at in shapes]
    right = [line.to(at, math.inf, at) for at in shapes]
    between = {(i, j): line.between(shapes[i], shapes[j]) for i, j in itertools.combinations(range(len(shapes)), 2)}
    totals, choices = left, list[list[int]]()
    for buckets in range(2, min(most, len(shapes)) + 1):
        following, chosen = [math.inf] * len(shapes), [0] * len(shapes)
        for j in range(buckets - 1, len(shapes)):
            i = min(range(j), key=lambda i: totals[i] + between[i, j])
            following[j], chosen[j] = totals[i] + between[i, j], i
        totals = following
        choices.append(chosen)
    j = min(range(len(totals)), key=lambda j: totals[j] + right[j])
    found = [j]
    for chosen in reversed(choices):
        j = chosen[j]
        found.append(j)
    return found[::-1]


class _Line:
    """Sums of counts and of count * place over stretches of a line."""

    def __init__(self, points: Sequence[tuple[float, int]]) -> None:
        self._places = [place for place, _ in points]
        self._counts = [0, *itertools.accumulate(count for _, count in points)]
        self._moments = [0.0, *itertools.accumulate(place * count for place, count in points)]

    def to(self, low: float, high: float, target: float) -> float:
        """The sum of count * |place - target| over low < place <= high, where target is at one end or beyond."""
        i, j = bisect.bisect_right(self._places, low), bisect.bisect_right(self._places, high)
        return abs(self._moments[j] - self._moments[i] - target * (self._counts[j] - self._counts[i]))

    def between(self, low: float, high: float) -> float:
        """The same for the places between two targets, each to the nearer."""
        middle = (low + high) / 2
        return self.to(low, middle, low) + self.to(middle, high, high)
