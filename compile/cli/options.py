"""What every subcommand shares: the project root, the endpoint's spec, and where to write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import endpoint_spec as specs
from compile.errors import UsageError

# Results go to stdout (a table for a person, JSON for a machine); plans, progress and errors to stderr.
out = Console(emoji=False)
err = Console(stderr=True, emoji=False)

Name = Annotated[str, typer.Argument(help="The endpoint: endpoints/NAME.yaml.", show_default=False)]
Root = Annotated[Path, typer.Option(help="The project: the folder with endpoints/.", show_default="the current folder")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Rehearse = Annotated[
    bool, typer.Option("--rehearse", help="Trace for this machine's CPU, into build/rehearsal/, instead of compiling.")
]


def facts(title: str) -> Table:
    """A table of two columns without a header: what, and its value."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def project(root: Path) -> Path:
    """The absolute project root. Raises UsageError when there is no endpoints/ in it."""
    if not (root / "endpoints").is_dir():
        raise UsageError(
            f"There is no folder endpoints/ in {root.resolve()}.",
            "Run this from the project's root, or name it with --root.",
        )
    return root.resolve()


def endpoint(name: str, root: Path) -> specs.EndpointSpec:
    """The spec of an endpoint. Raises UsageError when there is none of that name, SpecErrors when it is faulty."""
    folder = project(root) / "endpoints"
    there = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in there:  # by name, so that ../zoo/NAME is none
        known = ", ".join(there) or "none yet"
        raise UsageError(
            f"There is no endpoint {name!r}: endpoints/{name}.yaml does not exist. Endpoints: {known}.",
            f"Create it with: python -m compile new {name}",
        )
    return specs.load(folder / f"{name}.yaml", root=folder.parent)
