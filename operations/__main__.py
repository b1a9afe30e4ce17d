"""`python -m operations`: publish an artifact, try an endpoint, empty the bucket."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

import spec as specs
from operations import empty_bucket as emptying
from operations import locked as locking
from operations.account import ARTIFACTS_STACK, Account, explained
from operations.errors import OperationError, WrongUseError
from operations.fetch_weights import fetch_weights
from operations.publish import publish
from operations.smoke import smoke

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
console = Console(stderr=True)

Name = Annotated[str, typer.Argument(help="The endpoint's name: endpoints/NAME.yaml.")]
Root = Annotated[Path, typer.Option(help="The project's folder, the one that holds endpoints/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Rehearsal = Annotated[
    bool, typer.Option("--rehearsal", help="Use the rehearsal's lock and artifact (build/rehearsal/).")
]


def table(title: str, rows: dict[str, object]) -> None:
    """A summary of two columns on standard error."""
    result = Table(title=title, show_header=False, title_justify="left")
    for key, value in rows.items():
        result.add_row(key, str(value))
    console.print(result)


def finish(record: dict[str, Any], title: str, *, as_json: bool) -> None:
    """Show a result to a person, or to a machine."""
    if as_json:
        typer.echo(json.dumps(record, indent=2, sort_keys=True))
    else:
        table(title, record)


@app.command("publish")
def publish_command(name: Name, root: Root = Path(), rehearsal: Rehearsal = False, as_json: AsJson = False) -> None:
    """Upload NAME's artifact to the artifact bucket under its digest (nothing to do where it is there already).

    The bucket is the one of the deployed stack InferentiaArtifacts. A rehearsal only goes to the embedded AWS.
    """
    locked = locking.load(name, root.resolve(), rehearsal=rehearsal)
    columns = (TextColumn("publishing {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(name, total=locked.lock.artifact.bytes)
        result = publish(locked, Account(), lambda sent: progress.advance(bar, sent))
    finish(result.to_json(), "published" if result.uploaded else "already published", as_json=as_json)


@app.command("smoke")
def smoke_command(name: Name, root: Root = Path(), rehearsal: Rehearsal = False, as_json: AsJson = False) -> None:
    """Invoke NAME with the lock's sample and compare the answer with the one the build computed.

    Exit code 1 where the answer is outside the lock's tolerance.
    """
    result = smoke(locking.load(name, root.resolve(), rehearsal=rehearsal), Account())
    finish(result.to_json(), f"smoke {'passed' if result.passed else 'FAILED'}", as_json=as_json)
    if not result.passed:
        raise OperationError(
            f"{name} answers, but wrongly: error {result.error:.3g} over tolerance {result.tolerance:.3g} "
            f"at {result.compared} compared numbers. Either another artifact runs there, or its arithmetic differs."
        )


@app.command("empty-bucket")
def empty_bucket_command(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: AsJson = False
) -> None:
    """Delete every version of every artifact, so that "cdk destroy InferentiaArtifacts" can remove the bucket."""
    account = Account()
    bucket = account.output(ARTIFACTS_STACK, "ArtifactBucketName")
    rows = list(emptying.versions(account, bucket))
    console.print(f"s3://{bucket}: {len(rows)} versions, {sum(size for *_, size in rows) / 1e6:.1f} MB")
    if rows and not yes:
        if not sys.stdin.isatty():
            raise WrongUseError("this deletes artifacts that locks may name; say --yes to mean it.")
        typer.confirm("Delete them all? Endpoints that scale out or restart need their artifact", abort=True, err=True)
    finish({"bucket": bucket, "deleted": emptying.empty(account, bucket, rows)}, "emptied", as_json=as_json)


@app.command("fetch-weights")
def fetch_weights_command(name: Name, root: Root = Path(), as_json: AsJson = False) -> None:
    """Download NAME's s3: weights to build/weights/, checked against the spec's sha256, for a build to find."""
    spec = locking.load_spec(name, root.resolve())
    path = fetch_weights(spec, Account())
    finish({"name": name, "weights": str(path.relative_to(spec.root))}, "fetched", as_json=as_json)


def main(run: Callable[[], Any] = app) -> int:
    """Run the command line; 0 done, 1 the work failed, 2 wrong use."""
    try:
        with explained():
            run()
    except WrongUseError as error:
        console.print(f"[bold red]wrong use:[/] {error}", soft_wrap=True, highlight=False)
        return 2
    except (OperationError, specs.SpecErrors, OSError) as error:
        console.print("[bold red]failed:[/]", end=" ")
        console.print(str(error), soft_wrap=True, highlight=False, markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
