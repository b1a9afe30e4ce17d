"""Why a run failed, in its own words, with its record brought to this machine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from endpoint_spec.quantities import format_duration
from operations.errors import OperationError
from operations.jobs import record
from operations.jobs.instances import left_over
from operations.jobs.run import Run
from operations.jobs.screen import clock


def failure(run: Run, root: Path) -> OperationError:
    """The error of a run that did not succeed: reason, last lines of the log, where log and record are."""
    said = [f"run {run.run} {_ended(run)}", f"reason: {_reason(run)}"]
    for variant in run.failed_variants():
        said.append(f"{variant.label}: {variant.state}")
        said += [f"  | {line}" for line in run.last_lines.get(variant.index, [])]
        if variant.machines:
            said.append(f"  whole log: {run.log_place(variant)}")
    said += _record(run, root)
    said += left_over(run)
    said.append(f"Variants that were compiled stay in the cache. Again: python -m operations submit {run.name}")
    return OperationError("\n".join(said))


def _ended(run: Run) -> str:
    after = f"after {clock(run.seconds)}"
    limit = format_duration(timedelta(seconds=round(run.stack.time_limit.total_seconds())))
    return {
        "TIMED_OUT": f"was ended {after}: its time limit is {limit} (job.time_limit)",
        "ABORTED": f"was stopped {after} by somebody (StopExecution)",
    }.get(run.execution.status, f"failed {after}")


def _reason(run: Run) -> str:
    execution = run.execution
    said = ": ".join(part.strip() for part in (execution.error, execution.cause) if part)
    return said or "Step Functions gives none"


def _record(run: Run, root: Path) -> list[str]:
    """Download what the jobs left behind; that it cannot be had must not hide the run's own reason."""
    place = f"s3://{run.bucket}/{record.prefix(run)}"
    try:
        home, count = record.of_failure(run, root)
    except (ClientError, BotoCoreError, OSError, OperationError) as error:
        return [f"record: {place} could not be downloaded ({error})"]
    if not count:
        return ["record: none; no job of this run got as far as the compiler"]
    return [f"record: {home.relative_to(root)}/ ({count} files, also in {place})"]
