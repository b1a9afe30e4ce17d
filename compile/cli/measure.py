"""`measure`: how fast is the artifact on this machine?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from compile.cli.build import reporting
from compile.cli.options import Json, Name, Rehearse, Root, err, out
from compile.errors import UsageError
from compile.frontend.project import endpoint
from compile.packaging import artifact

if TYPE_CHECKING:
    from compile.profiling.benchmark import Report
    from compile.profiling.results import Kept

Numbers = Annotated[str | None, typer.Option(metavar="N,N,...", show_default="all that were built")]
Models = Annotated[str | None, typer.Option(metavar="N,N,...", show_default="1, 2, 4 ... one a core")]
Workers = Annotated[str, typer.Option(metavar="N,N,...", help="Threads that call each copy.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long each configuration runs, after its warm-up.")]
Price = Annotated[
    float | None, typer.Option(min=0, help="US dollars an hour of this machine.", show_default="the dated price table")
]


def measure_command(  # noqa: PLR0913, PLR0917  (a command line)
    name: Name,
    rehearse: Rehearse = False,
    batch_sizes: Numbers = None,
    n_models: Models = None,
    workers_per_model: Workers = "1,2",
    seconds: Seconds = 5.0,
    price_per_hour: Price = None,
    json_: Json = False,
    root: Root = Path(),
) -> None:
    """Measure throughput and latency: batch size x copies (n_models) x threads a copy (workers_per_model).

    On the instance type of the spec the figures enter the lock. Anywhere else they stay in build/measured/NAME with
    this machine's name; --rehearse measures the rehearsal on this CPU, which says nothing about an Inferentia chip.
    """
    from compile.profiling.benchmark import (  # noqa: PLC0415  (seconds of imports, --help need not wait)
        Settings,
        measure,
    )
    from compile.profiling.results import keep  # noqa: PLC0415

    spec = endpoint(name, root)
    settings = Settings(
        batch_sizes=_numbers("--batch-sizes", batch_sizes),
        n_models=_numbers("--n-models", n_models),
        workers_per_model=_numbers("--workers-per-model", workers_per_model) or (1, 2),
        seconds=seconds,
        price_per_hour=price_per_hour,
    )
    built = artifact.find(spec, rehearsal=rehearse)
    with artifact.unpacked(built) as files, reporting(json_) as reporter:
        report = measure(spec, built.lock, files.folder, files.manifest, settings, reporter)
    kept = keep(spec, built.lock, report)
    if json_:
        typer.echo(json.dumps({**asdict(report), "in_lock": kept.locked}, indent=2))
        return
    _show(report, kept.folder.relative_to(spec.root), kept)


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(f"{option} {text!r} is not a list of numbers.", f"Write them with commas: {option} 1,2,4.")
    return tuple(dict.fromkeys(int(word) for word in words))


def _show(report: Report, place: Path, kept: Kept) -> None:
    title = f"{report.name}: measured on {report.machine.instance_type or report.machine.processor}"
    table = Table(title=title, title_justify="left")
    for column in ("graph", "models x workers", "items/s", "mean ms", "p50", "p99", "p100", "$/1M"):
        table.add_column(column, overflow="fold")
    for row in report.rows:
        chosen = any(row is other for other in report.recommended)
        marks = (("pareto", row.pareto), ("recommended", chosen), ("bimodal", row.bimodal))
        table.add_row(
            "\n".join((row.role, row.bucket, f"batch {row.batch_size}", *(word for word, on in marks if on))),
            f"{row.n_models} x {row.workers_per_model}",
            f"{row.throughput_avg:.1f}\n± {row.throughput_std:.1f}",
            f"{row.latency_ms_avg:.2f}\n± {row.latency_ms_std:.2f}",
            *(f"{row.latency_ms[at]:.2f}" for at in ("p50", "p99", "p100")),
            "-" if row.cost_per_1m_inf is None else f"{row.cost_per_1m_inf:.3f}",
            end_section=True,
        )
    out.print(table)
    for note in report.notes:
        err.print(f"Note: {note}.", markup=False, highlight=False)
    where = "the lock" if kept.locked else f"{place} only: {report.machine.reason}"
    err.print(f"Figures are in {where}. Table: {place}/measured.json.", markup=False, highlight=False)
    plot = f"Plot: {place}/pareto.png." if kept.plotted else "No plot was drawn: matplotlib is not installed here."
    err.print(plot, markup=False, highlight=False)


COMMANDS = {"measure": measure_command}
