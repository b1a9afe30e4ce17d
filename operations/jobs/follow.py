"""Follow runs until the last of them has ended. What happens here never changes what happens there."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from endpoint_spec.loopback import is_loopback
from endpoint_spec.quantities import format_duration

from ..account import code_of
from ..errors import OperationError
from .run import Run, TrackedVariant

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
    """Shows runs on a console: a table that stays at the bottom of a terminal, or plain lines elsewhere."""

    def __init__(self, console: Console, runs: Sequence[Run]) -> None:
        self._console, self._runs = console, runs
        self._live: Live | None = None
        self._shown: dict[tuple[str, str], str] = {}

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
                if self._shown.get((run.run, variant.index), "waiting") != variant.state:
                    self._shown[run.run, variant.index] = variant.state
                    self._print(f"{clock(run.seconds)} {run.name} {variant.label}: {variant.state}")

    def line(self, run: Run, variant: TrackedVariant, text: str) -> None:
        """One line of a job's log."""
        where = f"{run.name} {variant.label}" if len(self._runs) > 1 else variant.label
        self._console.print(Text(f"{where} | ", style="dim") + Text(text), soft_wrap=True)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table("run", "variant", "state", "time", title_justify="left", show_edge=False)
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


PAUSE_SECONDS = 5.0  # a compilation takes minutes; GetExecutionHistory and GetLogEvents are throttled
LOOPBACK_PAUSE_SECONDS = 0.5
_MOST_FAILURES = 12  # in a row: a minute without an answer


def follow(runs: Sequence[Run], screen: Screen) -> None:
    """Show what the runs do until all have ended, however they end.

    Raises:
        OperationError: where AWS cannot be asked any more; the runs keep running.
    """
    failures, pending = 0, list(runs)
    with screen.shown():
        while True:
            try:
                for run in list(pending):  # each once at least: what has ended already is read too
                    run.refresh(functools.partial(screen.line, run))
                    if not run.execution.running:
                        pending.remove(run)
                failures = 0
            except (ClientError, BotoCoreError) as error:
                failures += 1
                if failures >= _MOST_FAILURES or not _passing(error):
                    raise OperationError(
                        f"the run cannot be followed any more: {error}. {how_to_attach(runs)}"
                    ) from error
            screen.update()
            if not pending:
                return
            time.sleep(pause(runs[0]))


def pause(run: Run) -> float:
    """Seconds between two looks."""
    near = is_loopback(run.account.stepfunctions.meta.endpoint_url)
    return LOOPBACK_PAUSE_SECONDS if near else PAUSE_SECONDS


def how_to_attach(runs: Sequence[Run]) -> str:
    """What became of the runs, and the command that follows them again or makes artifacts of what they compiled."""
    sentences = []
    for run in runs:
        attach = f'"inferentia attach {run.name}"'
        sentences.append(
            f"{run.run} keeps running in the account; {attach} follows it again."
            if run.execution.running
            else f"{run.run} has ended; {attach} makes artifact and lock of what it compiled."
        )
    return " ".join(sentences)


def _passing(error: Exception) -> bool:
    """Whether asking again may help: throttling, a server's fault, or no connection."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or "Throttl" in code_of(error)
    return True
