"""The sizes and the chosen buckets as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.buckets.aspect import ShapePlan
from compile.buckets.planning import Plan
from compile.buckets.sizes import Histogram, Size
from compile.files import drafted

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
    sets = {"chosen": found.best.buckets, "evenly spaced": found.even.buckets}
    if isinstance(found, ShapePlan):
        ratios = {name: [width / height for height, width in buckets] for name, buckets in sets.items()}
        places = [width / height for height, width in sizes.counts]
        _line(axes, places, sizes, ratios, ("width / height", "pictures"))
        title = f"squeezed by {found.best.mean:.1%} on average; evenly spaced {found.even.mean:.1%}"
        axes.set_title(f"{title}; one bucket {found.one.mean:.1%}")
    else:
        if found.dimensions == 1:
            lengths: dict[str, list[float]] = {name: [size[0] for size in buckets] for name, buckets in sets.items()}
            _line(axes, [size[0] for size in sizes.counts], sizes, lengths, ("length", "items"))
        else:
            _pictures(axes, sizes, sets)
        title = f"{found.best.waste:.1%} wasted; evenly spaced {found.even.waste:.1%}"
        axes.set_title(f"{title}; one bucket {found.one.waste:.1%}")
    axes.legend()
    with drafted(path) as draft:
        figure.savefig(draft, format=path.suffix.lstrip("."), dpi=120)


def _line(
    axes: Axes, places: Sequence[float], sizes: Histogram, sets: dict[str, list[float]], labels: tuple[str, str]
) -> None:
    """Places of the sizes on a line as a histogram, and the buckets' places as lines."""
    counts = list(sizes.counts.values())
    axes.hist(places, bins=min(_BINS, len(places)), weights=counts, color="lightgrey")
    for name, colour, style in _STYLES:
        for number, place in enumerate(sets[name]):
            axes.axvline(place, color=colour, linestyle=style, label=name if number == 0 else None)
    axes.set(xlabel=labels[0], ylabel=labels[1])


def _pictures(axes: Axes, sizes: Histogram, sets: dict[str, list[Size]]) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    most = max(sizes.counts.values())
    areas: list[Any] = [10 + 90 * count / most for count in sizes.counts.values()]
    axes.scatter([s[1] for s in sizes.counts], [s[0] for s in sizes.counts], s=areas, color="grey", alpha=0.5)
    for name, colour, style in _STYLES:
        for number, (height, width) in enumerate(sets[name]):
            label = name if number == 0 else None
            axes.add_patch(Rectangle((0, 0), width, height, fill=False, edgecolor=colour, linestyle=style, label=label))
    axes.set(xlim=(0, None), ylim=(0, None), xlabel="width", ylabel="height")
    axes.autoscale_view()
