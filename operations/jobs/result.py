"""Bring a run's artifact and lock home: verified against what was published, then adopted by compile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.exceptions import ClientError

from endpoint_spec import jobs
from endpoint_spec.digests import file_digest
from operations.errors import OperationError
from operations.jobs import record
from operations.jobs.compiling import compile_command
from operations.jobs.run import Run


@dataclass(frozen=True)
class Adopted:
    """A run's result, on this machine and locked. key: where the artifact is published."""

    name: str
    run: str
    key: str
    sha256: str
    bytes: int
    rehearsal: bool

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def bring_home(run: Run, root: Path, progress: Callable[[int], None] | None = None) -> Adopted:
    """Download lock and published artifact, verify both, and have compile write them at their places.

    The artifact is taken from where endpoints will take it, so that what is locked is what was published.

    Raises:
        OperationError: a result that is not there or does not fit, or what compile said: that the spec changed
            meanwhile, for example. Nothing is locked then.
    """
    home = root / "build" / "jobs"
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=home, prefix=f"{run.run}-"))  # its own: several may follow one run
    try:
        result = _fetched(run, folder, progress)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # Where compile refuses the result it stays, so that compile's own advice can be followed.
    compile_command(root, "adopt", run.name, "--from", str(folder), *(["--rehearse"] if result.rehearsal else []))
    shutil.rmtree(folder)
    record.of_success(run, root)
    return Adopted(
        run.name, run.run, result.artifact.key, result.artifact.sha256, result.artifact.bytes, result.rehearsal
    )


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
            f"Again: python -m operations attach {run.name}"
        ) from error


def _result(run: Run, folder: Path) -> jobs.Result:
    """result.json, of this endpoint and this build, naming what the run published."""
    try:
        result = jobs.read_result(folder / jobs.RESULT)
    except jobs.JobError as error:
        raise OperationError(f"run {run.run}: {error} Nothing was locked.") from error
    published = run.execution.output.get("artifact", {})
    said = (result.name, result.build_digest, result.artifact.sha256)
    wanted = (run.name, run.execution.told.get("build_digest"), published.get("sha256"))
    if said != wanted:
        raise OperationError(
            f"result.json of run {run.run} is of {', '.join(said)}; the run was told and published "
            f"{', '.join(map(str, wanted))}. Nothing was locked."
        )
    return result


def _same(what: str, found: str, named: str) -> None:
    if found != named:
        raise OperationError(
            f"{what} has sha256 {found}, result.json names {named}: it was damaged or replaced. Nothing was locked."
        )
