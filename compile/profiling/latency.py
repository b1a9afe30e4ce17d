"""A set of latencies: mean, deviation, percentiles, and whether there are two kinds of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILES = (0, 50, 90, 95, 99, 99.9, 100)
_FEWEST = 30  # below this many samples, their shape is unknown
_GRID = 512
# Two peaks count when the valley between them is below this share of the lower one, and each holds this share.
_VALLEY, _SHARE = 0.5, 0.05


@dataclass(frozen=True)
class Modes:
    """Two groups of latencies: where each has its peak, in milliseconds, and the share of the slower one."""

    low_ms: float
    high_ms: float
    share_high: float

    def __str__(self) -> str:
        return (
            f"two groups, around {self.low_ms:.3g} ms and {self.high_ms:.3g} ms ({self.share_high:.0%} in the slower)"
        )


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """p0 to p100 by linear interpolation, as NeuronPerf names them."""
    found = np.percentile(np.asarray(milliseconds, dtype=np.float64), PERCENTILES)
    return {f"p{at:g}": float(value) for at, value in zip(PERCENTILES, found, strict=True)}


def modes(milliseconds: Sequence[float]) -> Modes | None:
    """The two groups that latencies fall into, or None when they are of one kind or too few.

    A kernel density of the logarithms with Silverman's bandwidth; a mean of two groups describes neither of them.
    """
    values = np.log(np.asarray([ms for ms in milliseconds if ms > 0], dtype=np.float64))
    if values.size < _FEWEST:
        return None
    spread = min(float(values.std()), float(np.subtract(*np.percentile(values, [75, 25]))) / 1.34) or float(
        values.std()
    )
    if spread == 0.0:
        return None
    # The spread of two groups is their distance: a third of the usual bandwidth still separates them.
    width = 0.9 * spread * values.size ** (-0.2)
    grid = np.linspace(values.min() - 3 * width, values.max() + 3 * width, _GRID)
    sample = values if values.size <= 4000 else np.quantile(values, np.linspace(0, 1, 4000))
    density = np.exp(-0.5 * ((grid[:, None] - sample[None, :]) / width) ** 2).sum(axis=1)
    return _two_peaks(grid, density, values)


def _two_peaks(grid: Any, density: Any, values: Any) -> Modes | None:
    """The split with the deepest valley between two peaks that both hold enough."""
    inner = density[1:-1]
    valleys = np.flatnonzero((inner < density[:-2]) & (inner <= density[2:])) + 1
    best: tuple[float, Modes] | None = None
    for valley in valleys:
        left, right = int(density[:valley].argmax()), int(density[valley:].argmax()) + int(valley)
        depth = float(density[valley] / min(density[left], density[right]))
        share = float((values > grid[valley]).mean())
        if depth <= _VALLEY and _SHARE <= share <= 1 - _SHARE and (best is None or depth < best[0]):
            best = depth, Modes(float(np.exp(grid[left])), float(np.exp(grid[right])), share)
    return best[1] if best else None
