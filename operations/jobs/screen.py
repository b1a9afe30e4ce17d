"""What is shown while runs are followed: a table that stays at the bottom of a terminal, or plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from endpoint_spec.quantities import format_duration
from operations.jobs.run import Run
from operations.jobs.variants import TrackedVariant

_COLOURS = {
    "waiting": "dim",
    "running": "yellow",
    "done": "green",
    "cached": "cyan",
    "failed": "bold red",
    "stopped": "red",
}


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Screen:
    """Shows runs on a console."""

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        self._console, self._runs = console, runs
        self._live: Live | None = None
        self._told: dict[tuple[str, str], str] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The table stands while the block runs, and stays as it was at its end."""
        for run in self._runs:
            limit = format_duration(run.stack.time_limit)
            self._print(
                f"{run.run} ({run.stack.where}): ended after {limit} at the latest; cost {run.stack.cost_limit}"
            )
        if not self._console.is_terminal:
            yield
            return
        with Live(self._table(), console=self._console, refresh_per_second=2) as live:
            self._live = live
            try:
                yield
            finally:
                live.update(self._table())
                self._live = None

    def update(self) -> None:
        """Show the states as they are now."""
        if self._live is not None:
            self._live.update(self._table())
            return
        for run in self._runs:
            for variant in run.variants:
                if self._told.get((run.run, variant.index), "waiting") != variant.state:
                    self._told[run.run, variant.index] = variant.state
                    self._print(f"{clock(run.seconds)} {run.name} {variant.label}: {variant.state}")

    def line(self, run: Run, variant: TrackedVariant, text: str) -> None:
        """One line of a job's log."""
        where = f"{run.name} {variant.label}" if len(self._runs) > 1 else variant.label
        self._console.print(Text(f"{where} | ", style="dim") + Text(text), soft_wrap=True)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(title_justify="left", show_edge=False)
        for column in ("run", "variant", "state", "time"):
            table.add_column(column)
        for run in self._runs:
            table.add_section()
            table.add_row(run.run, "", run.execution.status.lower(), clock(run.seconds))
            for variant in run.variants:
                state = Text(variant.state, style=_COLOURS[variant.state])
                table.add_row("", variant.label, state, _variant_time(run, variant))
        return table


def _variant_time(run: Run, variant: TrackedVariant) -> str:
    if variant.started is None:
        return ""
    if variant.ended is not None:
        return clock((variant.ended - variant.started).total_seconds())
    return clock(run.seconds - (variant.started - run.execution.started).total_seconds())
