"""`report`: everything that is known of a build, in one page."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from compile.cli.options import Json, Name, Rehearse, Root, out
from compile.files import place, staging
from compile.frontend.project import endpoint


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("report")(report_command)


def report_command(name: Name, rehearse: Rehearse = False, json_: Json = False, root: Root = Path()) -> None:
    """Write build/report/NAME.md and NAME.json: prediction against log, parity, latency, versions, and what is missing.

    It runs nothing: it reads the lock, the build's record, and what verify and measure left. What it cannot say stands
    at the top, with the command that would tell it.
    """
    from compile.pipeline.report import (  # noqa: PLC0415  (seconds of imports, which --help need not wait for)
        collect,
        markdown,
    )

    spec = endpoint(name, root)
    found = collect(spec, rehearsal=rehearse)
    folder = spec.root / "build" / "report"
    with staging(folder) as scratch:
        stem = f"{name}.rehearsal" if rehearse else name
        page, data = scratch / f"{stem}.md", scratch / f"{stem}.json"
        page.write_text(markdown(found), encoding="utf-8", newline="\n")
        data.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
        place([(data, folder / data.name), (page, folder / page.name)])
    if json_:
        typer.echo(json.dumps(found, indent=2))
        return
    for item in found["missing"]:
        out.print(f"missing: {item['what']}. Run: {item['command']}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"Report: build/report/{stem}.md (and .json)", highlight=False)
