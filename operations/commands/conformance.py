"""`conformance`: does AWS answer as the embedded AWS does?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from ..account import Account
from ..conformance.checks import Waiting
from ..conformance.leftovers import found, remove
from ..conformance.plan import STEPS, Ledger, Prices, check_budget, prices, total, worst
from ..conformance.project import NAME, Project
from ..conformance.report import Run, write
from ..conformance.run import Conformance, prepare
from ..errors import OperationError, WrongUseError
from .common import AsJson, Root, finish, say, show

REHEARSED_FASTER = 20.0  # bounds of checks on the embedded AWS, where nothing takes as long


def conformance_command(
    budget: Annotated[
        float | None, typer.Option(help="US dollars that the run may cost at most; it needs one.")
    ] = None,
    hourly_price: Annotated[
        float | None, typer.Option(help="US dollars an hour of the instance, where no price of it is known.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    destroy: Annotated[bool, typer.Option("--destroy", help="Remove what an earlier run left; nothing else.")] = False,
    root: Root = Path(),
    rehearsal: Annotated[bool, typer.Option("--rehearsal", help="Ask the embedded AWS on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Deploy a tiny endpoint (compile.target: cpu) to your account, compare what AWS answers, and destroy everything.

    Prints a plan with the worst cost of each step and asks. A step begins only while it, and destroying after it, fit
    the budget. Writes build/conformance/report.md and report.json: each answer that is not the embedded AWS's, with
    its request id. A run that finds differences has done its work (exit code 0); 1: it failed or left something,
    2: wrong use, 130: interrupted. However it ends, it destroys what it made. The stacks InferentiaArtifacts and
    InferentiaImages, with the image of the target cpu, have to be there, and stay.
    """
    project, account = Project(root.resolve(), rehearsal), Account()
    limit = None if destroy else check_budget(budget)
    if rehearsal:
        account.guard(what="a rehearsed conformance run")
    if limit is None:
        _destroy(account, yes=yes)
        return
    spec = project.write("deploy")
    of = prices(spec, project.root, hourly_price, _dashboards(account))
    prepare(project, account, spec)
    _show_plan(of, limit)
    Ledger(limit, of).begin(STEPS[0])  # refused here where not even that fits
    _ask("Run it?", yes=yes)
    say("building the artifact here")
    project.build()
    run = Conformance(project, account, Ledger(limit, of), Waiting(REHEARSED_FASTER if rehearsal else 1.0), say).run()
    _finish(run, write(run, project.folder)[0], as_json=as_json)


def _dashboards(account: Account) -> int:
    pages = account.cloudwatch.get_paginator("list_dashboards").paginate()
    return sum(len(page.get("DashboardEntries", [])) for page in pages)


def _show_plan(of: Prices, budget: float) -> None:
    columns = [Column("step"), Column("what"), Column("at most", justify="right"), Column("USD", justify="right")]
    table = Table(*columns, title=f"conformance of {NAME}, in your account", title_justify="left")
    for step in STEPS:
        table.add_row(step.name, step.does, f"{step.minutes} min, {step.instances} instances", f"{worst(step, of):.2f}")
    table.add_row("all", "", "", f"{total(of):.2f}")
    show(table)
    for reason in of.reasons:
        say(f"  {reason}")
    if total(of) > budget:
        say(
            f"At worst that is more than the budget of {budget:.2f} USD: it stops before the step that might exceed it."
        )


def _ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise WrongUseError("this makes things in your account that cost; say --yes to mean it.")
    typer.confirm(question, abort=True, err=True)


def _destroy(account: Account, *, yes: bool) -> None:
    names = found(account)
    if not names:
        say("nothing of a conformance run is there")
        return
    say("\n".join(names))
    _ask("Delete all of it?", yes=yes)
    left = remove(account, say)
    if left:
        raise OperationError(f"could not be destroyed: {'; '.join(left)}")
    say("destroyed")


def _finish(run: Run, report: Path, *, as_json: bool) -> None:
    record = {
        "checks": len(run.outcomes), "differing": len(run.differing), "spent_at_most_usd": round(run.spent, 4),
        "ended": run.ended or "as planned", "left": list(run.left), "report": str(report),
    }  # fmt: skip
    if as_json:
        record["differences"] = [
            {"check": one.check, "request_id": one.request_id, "places": [asdict(place) for place in one.differences]}
            for one in run.differing
        ]
    finish(record, "conformance", as_json=as_json)
    if run.left:
        raise OperationError(f"could not be destroyed: {'; '.join(run.left)}. Again: inferentia conformance --destroy")
    if run.ended == "interrupted":
        raise typer.Exit(130)
    if run.ended:
        raise OperationError(run.ended)


COMMANDS = {"conformance": conformance_command}
