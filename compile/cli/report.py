"""`report`: everything that is known of a build, in one page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from compile.cli.options import Json, Name, Rehearse, Root, out
from compile.files import write_json, write_text
from compile.frontend.project import endpoint


def report_command(name: Name, rehearse: Rehearse = False, json_: Json = False, root: Root = Path()) -> None:
    """Write build/report/NAME.md and NAME.json: prediction against log, parity, latency, versions, and what is missing.

    It runs nothing: it reads the lock, the build's record, and what verify and measure left. What it cannot say stands
    at the top, with the command that would tell it.
    """
    from compile.pipeline.report import collect, markdown  # noqa: PLC0415  (seconds of imports)

    spec = endpoint(name, root)
    report = collect(spec, rehearsal=rehearse)
    folder, stem = spec.root / "build" / "report", f"{name}.rehearsal" if rehearse else name
    write_json(folder / f"{stem}.json", asdict(report))
    write_text(folder / f"{stem}.md", markdown(report))
    if json_:
        typer.echo(json.dumps(asdict(report), indent=2))
        return
    for item in report.missing:
        out.print(f"missing: {item.what}. Run: {item.command}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"Report: build/report/{stem}.md (and .json)", highlight=False)


COMMANDS = {"report": report_command}
