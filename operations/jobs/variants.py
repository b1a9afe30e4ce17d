"""What the variants of a run are doing, read from the run's history."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from endpoint_spec.jobs import GATHER
from operations.account import Account

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
    """One variant, or the gathering of all of them (index "gather"). jobs: their names, newest last."""

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
        # The Map counts its items from 0, in the order in which the run was told them.
        self.variants = {str(position): variant for position, variant in enumerate(variants)}
        self.variants[GATHER] = TrackedVariant(GATHER, "gather and publish")
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
        self.variants[GATHER].state = "done"

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
        elif kind == "MapStateExited":
            if event["stateExitedEventDetails"]["name"] == self._map and self._all_there():
                self._begin(self.variants[GATHER], event)
        elif kind == "TaskScheduled":
            self._scheduled(event)
        elif kind.startswith("Execution") and kind != "ExecutionStarted":
            for variant in self.variants.values():
                if variant.state == "running":
                    self._end(variant, kind.removeprefix("Execution"), event)

    def _all_there(self) -> bool:
        return all(variant.state in ("done", "cached") for variant in self.variants.values() if variant.index != GATHER)

    def _scheduled(self, event: HistoryEventTypeDef) -> None:
        details = event.get("taskScheduledEventDetails")
        if details is None or details.get("resource") not in _STARTS_JOB:
            return
        variant = self.variants[self._variant_of.get(event["id"], GATHER)]
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
        ran = variant.machines > 0 or variant.index == GATHER
        well: State = "done" if ran else "cached"
        variant.state = well if how == "Succeeded" else "failed" if how == "Failed" else "stopped"
        variant.ended = event["timestamp"]
