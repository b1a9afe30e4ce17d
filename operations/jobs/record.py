"""What a run that ended leaves on this machine: its locked result, or why it failed; and its record in either case."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from endpoint_spec import jobs
from endpoint_spec.digests import file_digest
from endpoint_spec.quantities import format_duration

from ..errors import OperationError
from .content import stored
from .follow import clock
from .run import Run
from .submit import compile_command

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef


@dataclass(frozen=True)
class Adopted:
    """A run's result, on this machine and locked. key: where the artifact is published."""

    name: str
    run: str
    key: str
    sha256: str
    bytes: int
    rehearsal: bool


def fetch_result(run: Run, root: Path, progress: Callable[[int], None] | None = None) -> Adopted:
    """Download lock and published artifact, verify both, and have compile write them at their places.

    The artifact is taken from where endpoints will take it, so that what is locked is what was published.

    Raises:
        OperationError: a result that is not there or does not fit, or what compile reported: that the spec changed
            meanwhile, for example. Nothing is locked then.
    """
    parent = root / "build" / "jobs"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{run.run}-"))  # its own: several may follow one run
    try:
        result = _fetched(run, folder, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Where compile refuses the result it stays, so that compile's own advice can be followed.
    compile_command(root, "adopt", run.name, "--from", str(folder), *(["--rehearse"] if result.rehearsal else []))
    shutil.rmtree(folder)
    fetch_record(run, root / "build" / "record" / run.name, graphs_only=True)  # where a build here leaves it
    made = result.artifact
    return Adopted(run.name, run.run, made.key, made.sha256, made.bytes, result.rehearsal)


def _fetched(run: Run, folder: Path, progress: Callable[[int], None] | None) -> jobs.Result:
    """result.json, lock and published artifact in a folder, each with the digest that it should have."""
    for file in (jobs.RESULT, jobs.LOCK):
        _download(run, jobs.output_prefix(run.name, run.run) + file, folder / file)
    result = _result(run, folder)
    if result.rehearsal or result.stand_in:
        made = "in a rehearsal" if result.rehearsal else "with a stand-in for the Neuron SDK"
        run.account.guard(what=f"the result of {run.run} was made {made} and")
    _download(run, result.artifact.key, folder / jobs.ARTIFACT, progress)
    _same("the published artifact", file_digest(folder / jobs.ARTIFACT), result.artifact.sha256)
    _same("the lock of the run", file_digest(folder / jobs.LOCK), result.lock_sha256)
    return result


def _download(run: Run, key: str, target: Path, progress: Callable[[int], None] | None = None) -> None:
    try:
        run.account.s3.download_file(run.bucket, key, str(target), Callback=progress)
    except (ClientError, Boto3Error) as error:
        raise OperationError(
            f"run {run.run} succeeded, but s3://{run.bucket}/{key} cannot be read: {error}. Nothing was locked. "
            f"Again: inferentia attach {run.name}"
        ) from error


def _result(run: Run, folder: Path) -> jobs.Result:
    """result.json, of this endpoint and this build, naming what the run published."""
    try:
        result = jobs.read_result(folder / jobs.RESULT)
    except jobs.JobError as error:
        raise OperationError(f"run {run.run}: {error} Nothing was locked.") from error
    published = run.execution.output.get("artifact", {})
    found = (result.name, result.build_digest, result.artifact.sha256)
    wanted = (run.name, run.execution.given.get("build_digest"), published.get("sha256"))
    if found != wanted:
        raise OperationError(
            f"result.json of run {run.run} is of {', '.join(found)}; the run was given and published "
            f"{', '.join(map(str, wanted))}. Nothing was locked."
        )
    return result


def _same(what: str, found: str, named: str) -> None:
    if found != named:
        raise OperationError(
            f"{what} has sha256 {found}, result.json names {named}: it was damaged or replaced. Nothing was locked."
        )


def failure(run: Run, root: Path) -> OperationError:
    """The error of a run that did not succeed: reason, last lines of the log, where log and record are."""
    given = [part.strip() for part in (run.execution.error, run.execution.cause) if part]
    lines = [f"run {run.run} {_outcome(run)}", f"reason: {': '.join(given) or 'Step Functions gives none'}"]
    for variant in run.failed_variants():
        lines.append(f"{variant.label}: {variant.state}")
        lines += [f"  | {line}" for line in run.last_lines.get(variant.index, [])]
        if variant.machines:
            lines.append(f"  whole log: {run.log_place(variant)}")
    lines += _record(run, root)
    lines += left_over(run)
    lines.append(f"Variants that were compiled stay in the cache. Again: inferentia submit {run.name}")
    return OperationError("\n".join(lines))


def _outcome(run: Run) -> str:
    after = f"after {clock(run.seconds)}"
    limit = format_duration(timedelta(seconds=round(run.stack.time_limit.total_seconds())))
    return {
        "TIMED_OUT": f"was ended {after}: its time limit is {limit} (job.time_limit)",
        "ABORTED": f"was stopped {after} by somebody (StopExecution)",
    }.get(run.execution.status, f"failed {after}")


def _record(run: Run, root: Path) -> list[str]:
    """Download what the jobs left behind; that it cannot be had must not hide the run's own reason."""
    bucket_place = f"s3://{run.bucket}/{run.record}"
    folder = root / "build" / "record" / run.name / run.run
    try:
        count = fetch_record(run, folder)
    except (ClientError, BotoCoreError, OSError, OperationError) as error:
        return [f"record: {bucket_place} could not be downloaded ({error})"]
    if not count:
        return ["record: none; no job of this run got as far as the compiler"]
    return [f"record: {folder.relative_to(root)}/ ({count} files, also in {bucket_place})"]


def fetch_record(run: Run, folder: Path, *, graphs_only: bool = False) -> int:
    """Download a run's record, INDEX/... for each variant and gather/...; return how many files there are.

    graphs_only: only the folders of graphs, without the variant's INDEX before them.

    Raises:
        OperationError: where S3 refuses, or a key would leave the folder.
    """
    places = {path: PurePosixPath(path) for path in stored(run.account, run.bucket, run.record)}
    if graphs_only:
        places = {path: PurePosixPath(*at.parts[1:]) for path, at in places.items() if len(at.parts) > 2}
    for path, place in places.items():
        if ".." in place.parts or place.is_absolute():
            raise OperationError(f"s3://{run.bucket}/{run.record} holds the key {path!r}, which leaves its folder")
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        run.account.s3.download_file(run.bucket, run.record + path, str(target))
    return len(places)


TAG = "inferentia:run"
_COSTING = ["pending", "running", "stopping", "stopped"]


def left_over(run: Run) -> list[str]:
    """A sentence about instances of an ended run that are not gone, empty where there are none."""
    if run.stack.where != "ec2":
        return []
    wanted: list[FilterTypeDef] = [
        {"Name": f"tag:{TAG}", "Values": [run.run]},
        {"Name": "instance-state-name", "Values": _COSTING},
    ]
    try:
        found = run.account.ec2.describe_instances(Filters=wanted)
    except (ClientError, BotoCoreError) as error:
        return [f"instances: could not be asked for ({error}); look at those with the tag {TAG}={run.run}"]
    names = [row["InstanceId"] for group in found["Reservations"] for row in group["Instances"]]
    if not names:
        return ["instances: none left"]
    return [
        f"instances: {', '.join(names)} still there. The stack's clean-up ends them within minutes, and they end "
        f"themselves at their time limit; at once: aws ec2 terminate-instances --instance-ids {' '.join(names)}"
    ]
