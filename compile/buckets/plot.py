"""The sizes and the chosen buckets as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.buckets.aspect import ShapePlan
from compile.buckets.planning import BucketSet, Plan
from compile.buckets.sizes import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 60
_STYLES = (("chosen", "tab:blue", "solid"), ("evenly spaced", "tab:orange", "dashed"))


def plot(sizes: Histogram, found: Plan | ShapePlan, path: Path) -> None:
    """Lengths and shapes as a histogram, pictures as points, the buckets drawn over them. Written by way of a draft."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (slow, and only needed here)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if isinstance(found, ShapePlan):
        _shapes(axes, sizes, found)
        title = f"squeezed by {found.best.mean:.1%} on average; evenly spaced {found.even.mean:.1%}"
        axes.set_title(f"{title}; one bucket {found.one.mean:.1%}")
    else:
        draw = _lengths if found.dimensions == 1 else _pictures
        draw(axes, sizes, {"chosen": found.best, "evenly spaced": found.even})
        title = f"{found.best.waste:.1%} wasted; evenly spaced {found.even.waste:.1%}"
        axes.set_title(f"{title}; one bucket {found.one.waste:.1%}")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, format=path.suffix.lstrip("."), dpi=120)
    draft.replace(path)


def _shapes(axes: Axes, sizes: Histogram, found: ShapePlan) -> None:
    ratios, counts = [width / height for height, width in sizes.counts], list(sizes.counts.values())
    axes.hist(ratios, bins=min(_BINS, len(ratios)), weights=counts, color="lightgrey")
    for (name, colour, style), shapes in zip(_STYLES, (found.best, found.even), strict=True):
        for number, (height, width) in enumerate(shapes.buckets):
            axes.axvline(width / height, color=colour, linestyle=style, label=name if number == 0 else None)
    axes.set(xlabel="width / height", ylabel="pictures")


def _lengths(axes: Axes, sizes: Histogram, sets: dict[str, BucketSet]) -> None:
    lengths, counts = [size[0] for size in sizes.counts], list(sizes.counts.values())
    axes.hist(lengths, bins=min(_BINS, len(lengths)), weights=counts, color="lightgrey")
    for name, colour, style in _STYLES:
        for number, bucket in enumerate(sets[name].buckets):
            axes.axvline(bucket[0], color=colour, linestyle=style, label=name if number == 0 else None)
    axes.set_xlabel("length")
    axes.set_ylabel("items")


def _pictures(axes: Axes, sizes: Histogram, sets: dict[str, BucketSet]) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    most = max(sizes.counts.values())
    areas: list[Any] = [10 + 90 * count / most for count in sizes.counts.values()]
    axes.scatter([s[1] for s in sizes.counts], [s[0] for s in sizes.counts], s=areas, color="grey", alpha=0.5)
    for name, colour, style in _STYLES:
        for number, (height, width) in enumerate(sets[name].buckets):
            label = name if number == 0 else None
            axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor=colour, linestyle=style, label=label))
    axes.set(xlim=(0, None), ylim=(0, None), xlabel="width", ylabel="height")
    axes.autoscale_view()
