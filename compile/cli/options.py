"""What every subcommand shares: the project root, the endpoint's spec, and where to write."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

# Results go to stdout (a table for a person, JSON for a machine); plans, progress and errors to stderr.
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)

Name = Annotated[str, typer.Argument(help="The endpoint: endpoints/NAME.yaml.", show_default=False)]
Root = Annotated[Path, typer.Option(help="The project: the folder with endpoints/.", show_default="the current folder")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Rehearse = Annotated[
    bool, typer.Option("--rehearse", help="Trace for this machine's CPU, into build/rehearsal/, instead of compiling.")
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Log each pass to stderr: what it changed, where and its seconds. -vv: graphs.",
    ),
]


class _ConsoleHandler(logging.Handler):
    """Prints log lines above the progress bars, which the same console draws."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def log_to_stderr(verbose: int) -> None:
    """The log of compile/ at INFO for -v, at DEBUG for -vv, and only warnings without either."""
    handler = _ConsoleHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("compile")
    logger.handlers = [handler]
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])


def facts(title: str) -> Table:
    """A table of two columns without a header: what, and its value."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table
