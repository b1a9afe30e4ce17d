"""Progress of long work, for a person or for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Announces steps. Inside a step, `advance(n)` reports n of its `total` units as done."""

    def step(self, title: str, total: int = 1) -> AbstractContextManager[Advance]: ...


class Silent:
    """Says nothing: for tests and for `--json`."""

    @contextmanager
    def step(self, title: str, total: int = 1) -> Iterator[Advance]:
        del title, total
        yield lambda _: None


class Lines:
    """One line when a step begins and one when it is done, each at once: for logs, which nobody redraws."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str, total: int = 1) -> Iterator[Advance]:
        del total
        started = time.monotonic()
        self._say(f"{title} ...")
        yield lambda _: None
        self._say(f"{title}: done in {time.monotonic() - started:.1f} s")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """One bar a step on the console (stderr), with the time each took. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:>3.0f} %", style="dim"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, title: str, total: int = 1) -> Iterator[Advance]:
        task = self._progress.add_task(title, total=total)
        yield lambda amount: self._progress.advance(task, amount)
        self._progress.update(task, completed=total)
