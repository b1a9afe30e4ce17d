"""`submit`, `attach` and `wheels`: compile in an account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.progress import Progress, TextColumn

import endpoint_spec as specs
from endpoint_spec.jobs import REQUIREMENTS

from ..account import Account
from ..errors import OperationError, WrongUseError
from ..jobs.follow import Screen, follow, how_to_attach
from ..jobs.record import failure, fetch_result
from ..jobs.run import Run
from ..jobs.submit import Reporter, choices, find, submit
from ..jobs.wheels import download, download_for_image, fetch, keep, read
from .common import UPLOADED, AsJson, Name, Root, console, finish, print_json, say, table

INTERRUPTED = 130  # 128 + SIGINT, as shells have it: neither done nor failed, the run keeps running
Rehearsal = Annotated[
    bool, typer.Option("--rehearsal", help="Have the jobs trace for a CPU, on the embedded AWS; build/rehearsal/.")
]
Wheels = Annotated[
    Path | None,
    typer.Option(help="Folder of wheels that the jobs install, see the command wheels; default: none."),
]
Detach = Annotated[bool, typer.Option("--detach", help="Start the run and return; attach follows it later.")]


def submit_command(
    name: Annotated[str | None, typer.Argument(help="The endpoint's name: endpoints/NAME.yaml.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every spec with a job section that is not locked.")] = False,
    rehearsal: Rehearsal = False,
    wheels: Wheels = None,
    detach: Detach = False,
    as_json: AsJson = False,
    root: Root = Path(),
) -> None:
    """Compile NAME where its spec's job section says: its graphs go there, not its code.

    The model is captured and proven here, which may take minutes; jobs compile the graphs; artifact and lock are made
    of what they compiled, proven and published from here. The stacks InferentiaArtifacts and InferentiaCompile-NAME
    must be deployed. What is compiled already is taken from the cache in the bucket. Ctrl-C ends the following, not
    the run: exit code 130, and attach finds it again.

    Examples: submit depth; submit --all --wheels build/wheels --detach; submit depth --rehearsal.
    """
    if (name is None) == (not all_):
        raise WrongUseError("name one endpoint, or say --all.")
    folder, account, problems, started = root.resolve(), Account(), list[str](), list[Run]()
    chosen = _chosen(folder, rehearsal, problems) if name is None else [specs.find(name, folder)]
    reporter = Reporter(say, _uploading)
    with _interruptible(started):
        for spec in chosen:
            try:
                started.append(submit(spec, account, wheels, reporter, rehearsal=rehearsal))
            except (OperationError, WrongUseError, BotoCoreError, ClientError, specs.SpecErrors) as error:
                if not all_:
                    raise
                problems.append(f"{spec.name}: {error}")
    if detach:
        for run in started:
            say(f"started {run.run}. {how_to_attach([run])}")
        _print([_summary(run) for run in started], all_, as_json)
    elif started:
        _finish(started, folder, all_, as_json, problems)
    elif as_json:
        _print([], all_, as_json)
    if problems:
        raise OperationError("\n".join(problems))


def attach_command(
    name: Name,
    run: Annotated[
        str | None, typer.Option(help="A run's name; by default the one that is running, or the newest.")
    ] = None,
    as_json: AsJson = False,
    root: Root = Path(),
) -> None:
    """Follow a run of NAME again, from any machine with the project; of one that has ended, make artifact and lock of
    what it compiled, or show why it failed.

    Examples: attach depth; attach depth --run depth-0123456789ab-1 --json.
    """
    folder, problems = root.resolve(), list[str]()
    _finish([find(specs.find(name, folder), Account(), run)], folder, False, as_json, problems)
    if problems:
        raise OperationError("\n".join(problems))


def wheels_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    target: Annotated[str, typer.Option(help="inf1 or inf2: whose image the wheels are for.")] = "inf1",
    sdk: Annotated[str | None, typer.Option(help="compile.sdk of the spec, where it has one.")] = None,
    package: Annotated[
        list[str] | None,
        typer.Option(help="One more requirement, as NAME==VERSION; repeat for several."),
    ] = None,
    for_image: Annotated[
        bool, typer.Option("--image", help="What the native server's image installs instead.")
    ] = False,
    keep_: Annotated[bool, typer.Option("--keep", help="Also bring DIR to the artifact bucket, for good.")] = False,
    kept: Annotated[str | None, typer.Option("--from", help="Fetch the kept set of this sha256 instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download the Neuron compiler where the target's image may lack it, with your own pip configuration.

    pip takes what your configuration leads to, with its dependencies; the hashes are written to DIR/requirements.txt,
    so that all jobs install those very files. With --image it is what the native server's image installs, by the hashes
    of the image's own lock. --keep brings the set to the artifact bucket, where it outlives the index it came from:
    image builds take theirs from there; --from fetches one for jobs. With --keep a DIR that holds a set is only kept.

    Examples: wheels build/wheels; wheels build/image --image --keep; wheels build/wheels --from 0123abcd
    """
    if kept is not None and (for_image or keep_ or package):
        raise WrongUseError("--from fetches a set as it is: say it without --image, --keep and --package.")
    if for_image and package:
        raise WrongUseError("--image is exactly what the image's lock names: say it without --package.")
    try:
        image = specs.platforms.image(target, "native" if for_image else "torchserve", sdk)
    except specs.platforms.UnknownPlatform as error:
        raise WrongUseError(str(error)) from None
    record: dict[str, Any] = {"folder": str(folder), "target": target}
    with console.status("wheels"):
        if kept is not None:
            record["wheels"] = fetch(Account(), kept, folder)
        elif keep_ and (folder / REQUIREMENTS).is_file():
            record["wheels"] = len(read(folder).files) - 1
        elif for_image:
            record["wheels"] = download_for_image(image, folder)
        else:
            record["wheels"] = download(image, folder, package or [])
        if keep_:
            record["kept"] = keep(Account(), folder)
    finish(record, "wheels", as_json=as_json)


def _chosen(root: Path, rehearsal: bool, problems: list[str]) -> list[specs.EndpointSpec]:
    """The specs that --all means; the others are listed, and a faulty one is a problem."""
    found = choices(root, rehearsal=rehearsal)
    for choice in found:
        verb = "submitted" if choice.submitted else "left out"
        say(f"{choice.name} {verb}: {choice.reason}")
        if choice.spec is None:
            problems.append(f"{choice.name} {choice.reason}")
    return [choice.spec for choice in found if choice.spec is not None and choice.submitted]


def _finish(runs: Sequence[Run], root: Path, all_: bool, as_json: bool, problems: list[str]) -> None:
    """Follow the runs, make artifacts of what they compiled, and collect what went wrong."""
    with _interruptible(runs):
        follow(runs, Screen(console, runs))
        records = [_ended(run, root, problems) for run in runs]
    if not as_json:
        for record in (record for record in records if "error" not in record):
            made = {key: record[key] for key in ("run", "key", "bytes", "rehearsal")}
            table(f"{record['name']}: built, locked and published", made)
    _print(records, all_, as_json)


@contextmanager
def _interruptible(runs: Sequence[Run]) -> Iterator[None]:
    """Ctrl-C ends what happens on this machine, and says what happens in the account."""
    try:
        yield
    except KeyboardInterrupt:
        say(how_to_attach(runs) or "Nothing was started.")
        raise typer.Exit(INTERRUPTED) from None


def _ended(run: Run, root: Path, problems: list[str]) -> dict[str, Any]:
    """What became of a run, for --json, with its artifact made and published."""
    try:
        if run.execution.status != "SUCCEEDED":
            raise failure(run, root)
        say(f"{run.name}: assembling and publishing here")
        return {**_summary(run), **asdict(fetch_result(run, root, _uploading))}
    except (OperationError, WrongUseError) as error:
        problems.append(str(error))
        return {**_summary(run), "error": str(error)}


def _summary(run: Run) -> dict[str, Any]:
    """A run for --json."""
    return {
        "name": run.name,
        "run": run.run,
        "execution_arn": run.execution.arn,
        "status": run.execution.status,
        "seconds": round(run.seconds, 1),
        "where": run.stack.where,
        "cost_limit": run.stack.cost_limit,
        "variants": [variant.to_json() for variant in run.variants],
    }


def _print(records: Sequence[dict[str, Any]], all_: bool, as_json: bool) -> None:
    if as_json:
        print_json(records if all_ else records[0])


@contextmanager
def _uploading(where: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar for an upload."""
    with Progress(TextColumn("{task.description}"), *UPLOADED, console=console, transient=True) as progress:
        bar = progress.add_task(where, total=size)
        yield lambda sent: progress.advance(bar, sent)


COMMANDS = {"submit": submit_command, "attach": attach_command, "wheels": wheels_command}
