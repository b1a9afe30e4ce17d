"""What every command shares: its usual options, and how results are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
from rich.table import Column, Table

console = Console(stderr=True)
UPLOADED = (BarColumn(), DownloadColumn(), TransferSpeedColumn())

Name = Annotated[str, typer.Argument(help="The endpoint's name: endpoints/NAME.yaml.")]
Root = Annotated[Path, typer.Option(help="The project's folder, the one that holds endpoints/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Rehearsal = Annotated[
    bool, typer.Option("--rehearsal", help="Use the rehearsal's lock and artifact (build/rehearsal/).")
]


def table(title: str, rows: dict[str, object]) -> None:
    """A summary of two columns on standard error."""
    columns = [Column(no_wrap=True), Column(no_wrap=True)]
    result = Table(*columns, title=title, show_header=False, title_justify="left")
    for key, value in rows.items():
        result.add_row(key, str(value))
    show(result)


def show(rows: Table) -> None:
    """Print a table as wide as it is: a digest, a key or an ARN that is broken into lines cannot be copied."""
    needed = Measurement.get(console, console.options.update(max_width=10_000), rows).maximum
    Console(stderr=True, width=max(needed, console.width)).print(rows, soft_wrap=True)


def say(text: str) -> None:
    """A line on standard error, as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_json(record: Any) -> None:
    """A result for a machine, on standard output."""
    typer.echo(json.dumps(record, indent=2, sort_keys=True))


def finish(record: dict[str, Any], title: str, *, as_json: bool) -> None:
    """Show a result to a person, or to a machine."""
    if as_json:
        print_json(record)
    else:
        table(title, record)
