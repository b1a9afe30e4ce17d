"""`verify`: is the artifact on this disk what its lock says?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.table import Table

from compile.commands.build import reporting
from compile.commands.common import Json, Name, Rehearse, Root, endpoint, out


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("verify")(verify_command)


def verify_command(name: Name, rehearse: Rehearse = False, json_: Json = False, root: Root = Path()) -> None:
    """Check the built artifact again: digests, parity with the model, and the sample's answer. Exit 1 if one fails."""
    from compile.verification import verify  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    spec = endpoint(name, root)
    with reporting(json_) as reporter:
        checks = verify(spec, rehearsal=rehearse, reporter=reporter)
    passed = all(check.passed for check in checks)
    if json_:
        typer.echo(json.dumps({"name": name, "passed": passed, "checks": [asdict(c) for c in checks]}, indent=2))
    else:
        table = Table("check", "", "detail", title=f"verify {name}", title_justify="left")
        for check in checks:
            table.add_row(check.what, "[green]✓[/green]" if check.passed else "[red]failed[/red]", check.detail)
        out.print(table)
    if not passed:
        raise typer.Exit(1)
