"""Which of several compiled picture sizes a picture is resized to. Standard library only.

The rule is that of Depth Anything V2's own preprocessing (github.com/DepthAnything/Depth-Anything-V2, dpt.py and
util/transform.py): the aspect ratio is kept, no side becomes smaller than `least`, both are rounded to the nearest
multiple of `multiple`. transformers' processor of the model does the same for pictures whose sides are all at least
`least`. Compiled sizes are few, so a picture whose size is not among them is squeezed into that of the nearest shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class ResizeRule:
    """least: no side is smaller. multiple: of which both sides are."""

    least: int
    multiple: int

    def size(self, height: int, width: int) -> Size:
        """(height, width) that the reference resizes a picture to."""
        scale = max(self.least / height, self.least / width)
        return self._rounded(scale * height), self._rounded(scale * width)

    def _rounded(self, side: float) -> int:
        # Halves go to the even multiple, in the reference (numpy) and here.
        nearest = round(side / self.multiple) * self.multiple
        return nearest if nearest >= self.least else math.ceil(side / self.multiple) * self.multiple


def aspect_distortion(picture: Size, bucket: Size) -> float:
    """By which factor one side is stretched against the other, minus 1: 0 for none, 1/3 for 4:3 in a square."""
    ratio = (picture[0] * bucket[1]) / (picture[1] * bucket[0])
    return max(ratio, 1 / ratio) - 1


def nearest(picture: Size, buckets: Sequence[Size], rule: ResizeRule | None) -> Size:
    """The bucket that the reference would resize to, where it is among `buckets`; else the one of the nearest shape.

    Of several of one shape it is the smallest that is not smaller than the picture, or the largest if all are.
    """
    if rule is not None and rule.size(*picture) in buckets:
        return rule.size(*picture)

    def order(bucket: Size) -> tuple[float, bool, int]:
        height, width = bucket
        smaller = height < picture[0] or width < picture[1]
        area = height * width
        return round(aspect_distortion(picture, bucket), 9), smaller, -area if smaller else area

    return min(buckets, key=order)
