"""One run as it is followed: its variants, its logs, how long it may take and what it may cost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

from endpoint_spec.jobs import GATHER, run_prefix
from operations.account import ARTIFACTS_STACK, Account
from operations.jobs import executions
from operations.jobs.compile_stack import CompileStack
from operations.jobs.executions import Execution
from operations.jobs.logs import CloudWatchLogs, Logs, S3Logs
from operations.jobs.variants import History, TrackedVariant

_LAST_LINES = 12


class Run:
    """A run that was started by whomever."""

    def __init__(self, account: Account, stack: CompileStack, name: str, execution: Execution) -> None:
        self.account, self.stack, self.name, self.execution = account, stack, name, execution
        self.bucket = str(execution.told.get("bucket") or account.output(ARTIFACTS_STACK, "ArtifactBucketName"))
        told = [TrackedVariant(row["index"], row["label"], row["key"]) for row in execution.told.get("variants", [])]
        self.history = History(account, execution.arn, told)
        self.last_lines: dict[str, list[str]] = {}
        self._logs = self._find_logs()

    @property
    def run(self) -> str:
        """The run's name."""
        return self.execution.run

    @property
    def prefix(self) -> str:
        """Where the run's objects lie in the bucket."""
        return run_prefix(self.name, self.run)

    @property
    def variants(self) -> list[TrackedVariant]:
        """The variants in order, then the gathering."""
        return list(self.history.variants.values())

    @property
    def seconds(self) -> float:
        """How long it has been going on, or took."""
        return ((self.execution.stopped or datetime.now(timezone.utc)) - self.execution.started).total_seconds()

    def refresh(self, show: Callable[[TrackedVariant, str], None]) -> None:
        """Read what happened since the last call; `show` is given each new line of a log with its variant."""
        self.execution = executions.describe(self.account, self.execution.arn)
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

    def _find_logs(self) -> Logs:
        if self.stack.where == "ec2":
            return S3Logs(self.account, self.bucket, f"{self.prefix}log/")
        return CloudWatchLogs(self.account, self.stack.log_group)

    def failed_variants(self) -> list[TrackedVariant]:
        """Which variants failed; where none did by itself, those that were stopped; else the gathering."""
        for state in ("failed", "stopped"):
            found = [variant for variant in self.variants if variant.state == state]
            if found:
                return found
        return [self.history.variants[GATHER]]
