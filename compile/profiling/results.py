"""Where figures go: build/measured/ with the machine's name, and into the lock only from the target instance type."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compile.files import drafted, write_json, write_text
from compile.profiling.benchmark import Report
from endpoint_spec import lock as locks

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


def folder(spec: EndpointSpec, rehearsal: bool) -> Path:
    """build/measured/NAME/rehearsal, or build/measured/NAME/TARGET."""
    return spec.root / "build" / "measured" / spec.name / ("rehearsal" if rehearsal else spec.compile.target)


@dataclass(frozen=True)
class Kept:
    """Where the figures went: a folder, the lock too, and whether there is a plot of them."""

    folder: Path
    locked: bool
    plotted: bool


def keep(spec: EndpointSpec, lock: locks.Lock, report: Report) -> Kept:
    """Writes measured.json and, where matplotlib is installed, pareto.png; and the lock, from the target itself."""
    place = folder(spec, lock.rehearsal)
    write_json(place / "measured.json", asdict(report))
    plotted = can_plot()
    if plotted:
        plot(report, place / "pareto.png")
    if report.machine.target and report.artifact == lock.digests.artifact:
        path = locks.lock_path(spec, lock.rehearsal)
        write_text(path, lock.model_copy(update={"measured": asdict(report)}).dump())
        return Kept(place, True, plotted)
    return Kept(place, False, plotted)


def can_plot() -> bool:
    """Whether matplotlib is here; a compile machine need not have it."""
    return importlib.util.find_spec("matplotlib") is not None


def plot(report: Report, path: Path) -> None:
    """Throughput against p99 of every configuration; the Pareto front is drawn through, the choice is ringed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (slow, and only needed here)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key in dict.fromkeys((row.role, row.bucket) for row in report.rows):
        mine = [row for row in report.rows if (row.role, row.bucket) == key]
        points = axes.scatter([row.p99 for row in mine], [row.throughput_avg for row in mine], label=" ".join(key))
        front = sorted((row.p99, row.throughput_avg) for row in mine if row.pareto)
        axes.plot(*zip(*front, strict=True), color=points.get_facecolor()[0], linewidth=1)
        for row in mine:
            text = f"b{row.batch_size} {row.n_models}x{row.workers_per_model}"
            axes.annotate(text, (row.p99, row.throughput_avg), textcoords="offset points", xytext=(4, 4), fontsize=7)
    chosen = report.recommended
    axes.scatter(
        [row.p99 for row in chosen],
        [row.throughput_avg for row in chosen],
        s=140,
        facecolors="none",
        edgecolors="black",
    )
    axes.set_xlabel("p99 latency of a call, ms")
    axes.set_ylabel("throughput, items/s")
    where = report.machine.instance_type if report.machine.target else f"{report.machine.processor} (not the target)"
    axes.set_title(f"{report.name} on {where}, {report.date[:10]}")
    axes.legend()
    with drafted(path) as draft:
        figure.savefig(draft, format="png", dpi=120)
