"""`bundle` and `adopt`: the parts of a compile run on AWS that need the model's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compile.cli.build import project_cache, reporting, show
from compile.cli.options import Json, Name, Rehearse, Root, Verbose, facts, log_to_stderr, out
from compile.errors import CompileError
from compile.frontend.project import endpoint
from endpoint_spec import jobs

if TYPE_CHECKING:
    from endpoint_spec.jobs import Plan

To = Annotated[Path, typer.Option("--to", help="Where the bundle goes: a folder that is empty or not there.")]
From = Annotated[Path, typer.Option("--from", help="The folder with plan.json and variants/KEY/variant.tar.")]
Environment = Annotated[
    str,
    typer.Option(help="What else distinguishes compiling machines, such as the AMI id; it enters the variants' keys."),
]


def bundle_command(
    name: Name,
    to: To,
    rehearse: Rehearse = False,
    environment: Environment = "",
    json_: Json = False,
    root: Root = Path(),
    verbose: Verbose = 0,
) -> None:
    """Capture and prove the model, and pack what compile jobs need: its graphs, what compiles them, and the plan.

    Nothing of your code is in it. `inferentia submit` does it for you. For the target itself the matrix of graphs must
    fit the instance.
    """
    log_to_stderr(verbose)
    from compile.remote import bundle  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    spec = endpoint(name, root)
    with reporting(json_) as reporter:
        cache = project_cache(spec.root)
        plan = bundle.make(spec, to, rehearse=rehearse, reporter=reporter, cache=cache, environment=environment)
    digest = jobs.files_digest(jobs.tree_digests(to))
    if json_:
        typer.echo(json.dumps({"directory": str(to), "inputs_sha256": digest, "plan": plan.model_dump(mode="json")}))
    else:
        _show_plan(plan, to, digest)


def _show_plan(plan: Plan, to: Path, digest: str) -> None:
    table = facts(f"{plan.name}: bundle in {to}")
    table.add_row("target", f"{plan.target}{' (rehearsal)' if plan.rehearsal else ''}")
    table.add_row("inputs", "of this sha256:")
    table.add_row("", digest)  # fits a line of 80 by itself, as keys do
    for variant in plan.variants:
        table.add_row(f"variant {variant.index}", f"{variant.label}, of this key:")
        table.add_row("", variant.key)
    out.print(table)


def adopt_command(
    name: Name, from_: From, rehearse: Rehearse = False, json_: Json = False, root: Root = Path(), verbose: Verbose = 0
) -> None:
    """Assemble what the jobs of a run compiled: artifact and lock at their places. `inferentia attach` does it for you.

    The graphs are those that were captured and proven here; a run of other graphs, or of another spec, is refused.
    """
    log_to_stderr(verbose)
    from compile.remote import adopt  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    spec = endpoint(name, root)
    try:
        with reporting(json_) as reporter:
            result = adopt.adopt(spec, from_, rehearse=rehearse, reporter=reporter, cache=project_cache(spec.root))
    except jobs.JobError as error:
        raise CompileError(str(error), "Nothing was changed. Download it again: inferentia attach NAME.") from None
    show(result, json_)


COMMANDS = {"bundle": bundle_command, "adopt": adopt_command}
