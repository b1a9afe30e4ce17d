"""New lines of the jobs' logs: CloudWatch Logs for SageMaker's jobs, an object in S3 for an EC2 instance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import ClientError

from operations.account import Account
from operations.jobs.variants import TrackedVariant

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import GetLogEventsRequestTypeDef

_MOST_PAGES = 50  # a refresh reads at most so many pages of one stream; the next goes on from there


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
            if error.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                return []  # SageMaker makes the group with the first line of the first job
            raise
        return [row["logStreamName"] for row in found["logStreams"]]

    def _read(self, stream: str) -> Iterable[str]:
        for _ in range(_MOST_PAGES):
            token = self._token.get(stream)
            request: GetLogEventsRequestTypeDef = {
                "logGroupName": self.group,
                "logStreamName": stream,
                "startFromHead": True,
            }
            if token:
                request["nextToken"] = token
            answer = self.account.logs.get_log_events(**request)
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
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "InvalidRange"):  # not yet; nothing new
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
