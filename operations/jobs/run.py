"""One run as it is followed: its variants, read from its history, and the new lines of their logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from botocore.exceptions import ClientError

from endpoint_spec.jobs import run_prefix

from ..account import Account, code_of
from . import compile_stack
from .compile_stack import CompileStack, Execution

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.type_defs import HistoryEventTypeDef


State = Literal["waiting", "running", "done", "cached", "failed", "stopped"]
_STARTS_JOB = ("createProcessingJob", "runInstances")
_ENDINGS = {
    "MapIterationSucceeded": "mapIterationSucceededEventDetails",
    "MapIterationFailed": "mapIterationFailedEventDetails",
    "MapIterationAborted": "mapIterationAbortedEventDetails",
}


@dataclass
class TrackedVariant:
    """One variant. jobs: the names of its jobs, newest last. machines: how many were asked for."""

    index: str
    label: str
    key: str | None = None
    state: State = "waiting"
    started: datetime | None = None
    ended: datetime | None = None
    jobs: list[str] = field(default_factory=list)
    machines: int = 0

    def to_json(self) -> dict[str, Any]:
        """For --json; seconds is None where nothing ran."""
        seconds = (self.ended - self.started).total_seconds() if self.started and self.ended else None
        return {"index": self.index, "label": self.label, "key": self.key, "state": self.state, "seconds": seconds}


class History:
    """The variants of one run. `refresh` reads what is new in its history."""

    def __init__(self, account: Account, arn: str, variants: list[TrackedVariant]) -> None:
        # The Map counts its items from 0, in the order of the run's input.
        self.variants = {str(position): variant for position, variant in enumerate(variants)}
        self._account, self._arn = account, arn
        self._seen: set[int] = set()
        self._map: str | None = None  # the state that goes over the variants: the first Map of a run
        self._variant_of: dict[int, str] = {}  # of every event, the variant in whose iteration it happened

    def refresh(self) -> None:
        """Read the events that were not there at the last refresh."""
        for event in sorted(self._new(), key=lambda event: event["id"]):
            self._seen.add(event["id"])
            self._place(event)
            self._read(event)

    def settle(self, output: Mapping[str, Any]) -> None:
        """What a run that succeeded says of its variants at its end; the history may lag behind it."""
        cached = {str(row["index"]): bool(row["cached"]) for row in output.get("variants", [])}
        for variant in self.variants.values():
            if variant.index in cached:
                variant.state = "cached" if cached[variant.index] else "done"

    def _new(self) -> Iterator[HistoryEventTypeDef]:
        """Newest first, so that a long history is not read again and again."""
        pages = self._account.stepfunctions.get_paginator("get_execution_history").paginate(
            executionArn=self._arn, reverseOrder=True, includeExecutionData=True
        )
        for page in pages:
            events = [event for event in page["events"] if event["id"] not in self._seen]
            yield from events
            if not events:
                return

    def _place(self, event: HistoryEventTypeDef) -> None:
        started = event.get("mapIterationStartedEventDetails")
        if event["type"].startswith("MapState"):
            index = None  # its end follows the last iteration's, and is no part of it
        elif started is None:
            index = self._variant_of.get(event.get("previousEventId", 0))
        else:
            self._map = self._map or started["name"]
            index = str(started["index"]) if started["name"] == self._map else None
        if index is not None:
            self._variant_of[event["id"]] = index

    def _read(self, event: HistoryEventTypeDef) -> None:
        kind = event["type"]
        if kind == "MapIterationStarted":
            if event["id"] in self._variant_of:
                self._begin(self.variants[self._variant_of[event["id"]]], event)
        elif kind in _ENDINGS:
            details = cast(dict[str, Any], event)[_ENDINGS[kind]]
            if details["name"] == self._map:
                self._end(self.variants[str(details["index"])], kind.removeprefix("MapIteration"), event)
        elif kind == "TaskScheduled":
            self._scheduled(event)
        elif kind.startswith("Execution") and kind != "ExecutionStarted":
            for variant in self.variants.values():
                if variant.state == "running":
                    self._end(variant, kind.removeprefix("Execution"), event)

    def _scheduled(self, event: HistoryEventTypeDef) -> None:
        details = event.get("taskScheduledEventDetails")
        index = self._variant_of.get(event["id"])
        if index is None or details is None or details.get("resource") not in _STARTS_JOB:
            return
        variant = self.variants[index]
        variant.machines += 1
        asked = json.loads(details.get("parameters") or "{}")
        if "ProcessingJobName" in asked:
            variant.jobs.append(asked["ProcessingJobName"])

    @staticmethod
    def _begin(variant: TrackedVariant, event: HistoryEventTypeDef) -> None:
        variant.state, variant.started = "running", event["timestamp"]

    @staticmethod
    def _end(variant: TrackedVariant, how: str, event: HistoryEventTypeDef) -> None:
        """`how` as Step Functions says it: Succeeded, Failed, Aborted (also because another one failed), TimedOut."""
        well: State = "done" if variant.machines else "cached"
        variant.state = well if how == "Succeeded" else "failed" if how == "Failed" else "stopped"
        variant.ended = event["timestamp"]


_MOST_PAGES = 50  # a refresh reads at most so many pages of one stream; the next continues from there


class Logs(Protocol):
    """Where the log of a variant is, and what is new in it."""

    def new_lines(self, variant: TrackedVariant) -> list[str]:
        """The lines since the last call."""

    def place(self, variant: TrackedVariant) -> str:
        """Where the whole log is, for a person."""


@dataclass
class CloudWatchLogs:
    """Streams JOB/algo-1-... of one log group (SageMaker Developer Guide, log groups and streams)."""

    account: Account
    group: str
    _token: dict[str, str] = field(default_factory=dict)

    def new_lines(self, variant: TrackedVariant) -> list[str]:
        """The lines since the last call, of all the variant's jobs."""
        return [line for job in variant.jobs for stream in self._streams(job) for line in self._read(stream)]

    def place(self, variant: TrackedVariant) -> str:
        """Log group and streams."""
        jobs = ", ".join(f"{job}/" for job in variant.jobs) or "none yet"
        return f"CloudWatch Logs, group {self.group}, streams {jobs}"

    def _streams(self, job: str) -> Iterable[str]:
        try:
            found = self.account.logs.describe_log_streams(logGroupName=self.group, logStreamNamePrefix=f"{job}/")
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return []  # SageMaker makes the group with the first line of the first job
            raise
        return [row["logStreamName"] for row in found["logStreams"]]

    def _read(self, stream: str) -> Iterable[str]:
        for _ in range(_MOST_PAGES):
            token = self._token.get(stream)
            further: Any = {"nextToken": token} if token else {}
            answer = self.account.logs.get_log_events(
                logGroupName=self.group, logStreamName=stream, startFromHead=True, **further
            )
            self._token[stream] = answer["nextForwardToken"]
            for event in answer["events"]:
                yield from event.get("message", "").splitlines()
            if answer["nextForwardToken"] == token or not answer["events"]:  # the same token again: its end, for now
                return


@dataclass
class S3Logs:
    """jobs/NAME/runs/RUN/log/INDEX.txt, which the instance uploads anew every 20 seconds."""

    account: Account
    bucket: str
    prefix: str
    _read: dict[str, int] = field(default_factory=dict)

    def new_lines(self, variant: TrackedVariant) -> list[str]:
        """The whole lines since the last call."""
        begin = self._read.get(variant.index, 0)
        try:
            answer = self.account.s3.get_object(Bucket=self.bucket, Key=self._key(variant), Range=f"bytes={begin}-")
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "InvalidRange"):  # not yet; nothing new
                return []
            raise
        whole, _, _ = answer["Body"].read().rpartition(b"\n")
        if not whole:
            return []
        self._read[variant.index] = begin + len(whole) + 1
        text: str = whole.decode("utf-8", "replace")
        return text.splitlines()

    def place(self, variant: TrackedVariant) -> str:
        """The object's address."""
        return f"s3://{self.bucket}/{self._key(variant)}"

    def _key(self, variant: TrackedVariant) -> str:
        return f"{self.prefix}{variant.index}.txt"


_LAST_LINES = 12


class Run:
    """A run, whichever user and machine started it."""

    def __init__(self, account: Account, stack: CompileStack, name: str, execution: Execution) -> None:
        self.account, self.stack, self.name, self.execution = account, stack, name, execution
        self.bucket = str(execution.given.get("bucket") or account.artifact_bucket)
        rows = execution.given.get("variants", [])
        variants = [TrackedVariant(row["index"], row["label"], row["key"]) for row in rows]
        self.history = History(account, execution.arn, variants)
        self.last_lines: dict[str, list[str]] = {}
        self._logs: Logs = CloudWatchLogs(account, stack.log_group)
        if stack.where == "ec2":
            self._logs = S3Logs(account, self.bucket, f"{self.prefix}log/")

    @property
    def run(self) -> str:
        """The run's name."""
        return self.execution.run

    @property
    def prefix(self) -> str:
        """Where the run's objects lie in the bucket."""
        return run_prefix(self.name, self.run)

    @property
    def record(self) -> str:
        """Where the record of its jobs lies in the bucket."""
        return f"{self.prefix}record/"

    @property
    def variants(self) -> list[TrackedVariant]:
        """The variants in order."""
        return list(self.history.variants.values())

    @property
    def seconds(self) -> float:
        """How long it has been running, or took."""
        return ((self.execution.stopped or datetime.now(timezone.utc)) - self.execution.started).total_seconds()

    def refresh(self, show: Callable[[TrackedVariant, str], None]) -> None:
        """Read what happened since the last call; `show` is given each new line of a log with its variant."""
        self.execution = compile_stack.describe(self.account, self.execution.arn)
        self.history.refresh()
        if self.execution.status == "SUCCEEDED":
            self.history.settle(self.execution.output)
        for variant in self.variants:
            if not variant.machines:
                continue
            for line in self._logs.new_lines(variant):
                self.last_lines[variant.index] = [*self.last_lines.get(variant.index, []), line][-_LAST_LINES:]
                show(variant, line)

    def log_place(self, variant: TrackedVariant) -> str:
        """Where a variant's whole log is."""
        return self._logs.place(variant)

    def failed_variants(self) -> list[TrackedVariant]:
        """Which variants failed; where none did by itself, those that were stopped."""
        for state in ("failed", "stopped"):
            found = [variant for variant in self.variants if variant.state == state]
            if found:
                return found
        return []
