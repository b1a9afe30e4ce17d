"""`preflight`: what the account would say later, asked before anything costs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

import endpoint_spec as specs
from endpoint_spec.lock import load_checked

from ..account import Account
from ..errors import OperationError
from ..preflight import Subject, preflight
from .common import AsJson, Name, Rehearsal, Root, print_json, show


def preflight_command(
    name: Name,
    root: Root = Path(),
    account: Annotated[str | None, typer.Option(help="The account that is meant; another one is refused.")] = None,
    qualifier: Annotated[str, typer.Option(help="Of `cdk bootstrap`, where you gave it one.")] = "hnb659fds",
    rehearsal: Rehearsal = False,
    as_json: AsJson = False,
) -> None:
    """Ask the account whether NAME can be deployed, and compiled where it has a job section. Changes nothing.

    Exit code 1 where something would fail later: each with the step and the way out.
    """
    spec = specs.find(name, root.resolve())
    lock, problems = load_checked(spec, rehearsal)
    here = Account()
    if rehearsal:
        here.guard(what=f"{name} is a rehearsal and")
    found = preflight(Subject(spec, lock, problems, account, qualifier), here)
    wrong = sum(one.status == "problem" for one in found)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        table = Table(*(Column(title, no_wrap=True) for title in ("", "check", "found", "what to do", "else fails")))
        for one in found:
            mark = {"problem": "[bold red]problem[/]", "ok": "[green]ok[/]"}.get(one.status, one.status)
            table.add_row(mark, one.check, one.found, one.remedy, one.later)
        show(table)
    if wrong:
        raise OperationError(f"{wrong} of {len(found)} checks say that {name} cannot be deployed as it is.")


COMMANDS = {"preflight": preflight_command}
