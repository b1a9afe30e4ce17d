"""`bundle`, `job variant`, `job gather` and `adopt`: the parts of a compile run on AWS that need the model's code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compile.cli.build import reporting
from compile.cli.options import Json, Name, Rehearse, Root, Verbose, err, facts, log_to_stderr, out
from compile.errors import CompileError, described
from compile.frontend.project import endpoint
from compile.progress import Lines
from endpoint_spec import SpecErrors, jobs
from endpoint_spec.lock import LockError, artifact_path, lock_path

if TYPE_CHECKING:
    from endpoint_spec.jobs import Plan

To = Annotated[Path, typer.Option("--to", help="Where the bundle goes: a folder that is empty or not there.")]
From = Annotated[Path, typer.Option("--from", help="The folder with model.tar.gz, lock.json and result.json.")]
Inputs = Annotated[Path, typer.Option(help="The job's inputs: project/, for gather also variants/.")]
Outputs = Annotated[Path, typer.Option(help="Where the job leaves what it makes.")]
Environment = Annotated[
    str,
    typer.Option(help="What else distinguishes compiling machines, such as the AMI id; it enters the variants' keys."),
]
_MESSAGE_BYTES = 1000  # SageMaker's ExitMessage takes 1024
_MESSAGE_VARIABLE = "INFERENTIA_MESSAGE_FILE"


def bundle_command(
    name: Name,
    to: To,
    rehearse: Rehearse = False,
    environment: Environment = "",
    json_: Json = False,
    root: Root = Path(),
    verbose: Verbose = 0,
) -> None:
    """Pack what a compile job needs: start.sh, the code, the spec with your own files, the weights, and the plan.

    `inferentia submit` does it for you. For the target itself the matrix of graphs must fit the instance.
    """
    log_to_stderr(verbose)
    from compile.remote import bundle  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    spec = endpoint(name, root)
    with reporting(json_) as reporter:
        plan = bundle.make(spec, to, rehearse=rehearse, reporter=reporter, environment=environment)
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


def variant_command(
    index: Annotated[int, typer.Argument(min=0, help="Which variant of plan.json.", show_default=False)],
    inputs: Inputs,
    outputs: Outputs,
    root: Root = Path(),
    verbose: Verbose = 0,
) -> None:
    """Compile one variant: OUTPUTS/variant/variant.tar, and in OUTPUTS/record the compiler's log."""
    log_to_stderr(verbose)
    with _message():
        from compile.remote import job as run  # noqa: PLC0415  (within, so that a missing package is reported too)
        from compile.remote import log_tail  # noqa: PLC0415

        job = run.opened(inputs.resolve(), outputs.resolve(), root.resolve())
        with log_tail.forward(job.outputs / "record", _say):
            made = run.compile_variant(job, index, Lines(err))
    out.print(f"{made.variant}: compiled, key {made.key}", highlight=False, soft_wrap=True)


def _say(line: str) -> None:
    err.print(line, markup=False, highlight=False, soft_wrap=True)


def gather_command(inputs: Inputs, outputs: Outputs, root: Root = Path(), verbose: Verbose = 0) -> None:
    """Make artifact and lock from compiled variants: OUTPUTS/result with model.tar.gz, lock.json, result.json."""
    log_to_stderr(verbose)
    with _message():
        from compile.remote import job as run  # noqa: PLC0415  (within, so that a missing package is reported too)

        job = run.opened(inputs.resolve(), outputs.resolve(), root.resolve())
        result = run.gather(job, Lines(err))
    out.print(f"{result.name}: gathered, artifact {result.artifact.sha256}", highlight=False, soft_wrap=True)


@contextmanager
def _message() -> Iterator[None]:
    """Leaves the reason of a failure in the file that SageMaker shows it from; the command line prints it as well."""
    try:
        yield
    except jobs.JobError as error:
        _leave(str(error))
        raise CompileError(str(error), "Submit it again.") from None
    except (CompileError, SpecErrors, LockError) as error:
        _leave(str(error))
        raise
    except Exception as error:
        _leave(f"unexpected {described(error)}.")
        raise


def _leave(text: str) -> None:
    line = " ".join(text.replace("->", "").split()).encode()[:_MESSAGE_BYTES].decode(errors="ignore")
    file = Path(os.environ.get(_MESSAGE_VARIABLE) or jobs.MESSAGE_FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line + "\n", encoding="utf-8")


def adopt_command(
    name: Name, from_: From, rehearse: Rehearse = False, json_: Json = False, root: Root = Path()
) -> None:
    """Take what a compile run brought back as the build of this project: artifact and lock at their places.

    Nothing is taken that has another digest than result.json states, or was built of another spec than the one here.
    """
    from compile.remote import adopt  # noqa: PLC0415  (seconds of imports, which --help need not wait for)

    spec = endpoint(name, root)
    try:
        lock, changed = adopt.adopt(spec, from_, rehearse=rehearse)
    except jobs.JobError as error:
        raise CompileError(str(error), "Nothing was changed. Download the result again.") from None
    places = [
        path.relative_to(spec.root).as_posix() for path in (artifact_path(spec, rehearse), lock_path(spec, rehearse))
    ]
    if json_:
        report = {"name": name, "changed": changed, "artifact": places[0], "lock_path": places[1]}
        typer.echo(json.dumps({**report, "lock": json.loads(lock.dump())}, indent=2))
        return
    table = facts(f"{name}: adopted")
    table.add_row("artifact", f"{places[0]}, of this sha256:")
    table.add_row("", lock.digests.artifact)  # fits a line of 80 by itself
    table.add_row("lock", places[1])
    table.add_row("changed", "yes" if changed else "no: artifact and lock were the same already")
    out.print(table)


job = typer.Typer(help="What runs inside a compile job; start.sh of a bundle calls it.", no_args_is_help=True)
job.command("variant")(variant_command)
job.command("gather")(gather_command)
COMMANDS = {"bundle": bundle_command, "adopt": adopt_command, "job": job}
