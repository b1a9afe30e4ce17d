"""What comes of a run that ended: artifact and lock, made and published here, or why it failed; and its record."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

from endpoint_spec import jobs
from endpoint_spec.quantities import format_duration

from .. import locked as locking
from ..errors import OperationError, WrongUseError
from ..publish import publish
from .compiling import compile_command
from .content import Uploading, stored
from .follow import clock
from .run import Run

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef


@dataclass(frozen=True)
class Adopted:
    """What came of a run, on this machine and locked. key: where the artifact is published."""

    name: str
    run: str
    key: str
    sha256: str
    bytes: int
    rehearsal: bool


def fetch_result(run: Run, root: Path, uploading: Uploading) -> Adopted:
    """Download the plan and the compiled variants, have compile make artifact and lock of them, publish the artifact.

    Raises:
        OperationError: a variant that is not there, or what compile reported: that the spec changed meanwhile, for
            example; nothing is locked then. Or an artifact that is locked and could not be published.
    """
    parent = root / "build" / "jobs"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{run.run}-"))  # its own: several may follow one run
    try:
        plan = _fetched(run, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Where compile refuses the variants they stay, so that compile's own advice can be followed.
    adopt = ["adopt", run.name, "--from", str(folder), *(["--rehearse"] if plan.rehearsal else [])]
    try:
        compile_command(root, *adopt)
    except (OperationError, WrongUseError) as error:
        stays = f"Nothing was locked; what the run compiled stays in {folder}."
        again = f"Again: inferentia {' '.join(adopt)}, then {_publish_command(plan)}"
        raise type(error)(f"{error}\n{stays} {again}") from error
    shutil.rmtree(folder)
    fetch_record(run, root / "build" / "record" / run.name, graphs_only=True)  # where a build here leaves it
    return _published(run, root, plan, uploading)


def _fetched(run: Run, folder: Path) -> jobs.Plan:
    """plan.json and the variants that it names, in a folder; whether they are right is for compile to say."""
    _download(run, str(run.execution.given.get("project")) + jobs.PLAN, folder / jobs.PLAN)
    try:
        plan = jobs.read_plan(folder / jobs.PLAN)
    except jobs.JobError as error:
        raise OperationError(f"run {run.run}: {error} Nothing was locked.") from error
    if plan.rehearsal:
        run.account.guard(what=f"{run.run} is a rehearsal and")
    for variant in plan.variants:
        target = folder / "variants" / variant.key / jobs.VARIANT
        target.parent.mkdir(parents=True)
        _download(run, jobs.variant_key(run.name, variant.key), target)
    return plan


def _download(run: Run, key: str, target: Path) -> None:
    try:
        run.account.s3.download_file(run.bucket, key, str(target))
    except (ClientError, Boto3Error) as error:
        raise OperationError(
            f"run {run.run} succeeded, but s3://{run.bucket}/{key} cannot be read: {error}. Nothing was locked. "
            f"Again: inferentia attach {run.name}"
        ) from error


def _published(run: Run, root: Path, plan: jobs.Plan, uploading: Uploading) -> Adopted:
    locked = locking.load(run.name, root, rehearsal=plan.rehearsal)
    try:
        with uploading(locked.lock.artifact.key, locked.lock.artifact.bytes) as sent:
            made = publish(locked, run.account, sent)
    except (ClientError, BotoCoreError, Boto3Error, OperationError) as error:
        raise OperationError(
            f"{run.name} is locked, but not published: {error} Again: {_publish_command(plan)}"
        ) from error
    return Adopted(run.name, run.run, made.key, locked.lock.digests.artifact, made.bytes, made.rehearsal)


def _publish_command(plan: jobs.Plan) -> str:
    return f"inferentia publish {plan.name}{' --rehearsal' if plan.rehearsal else ''}"


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
    """Download a run's record, INDEX/... for each variant; return how many files there are.

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
