"""What a run's history says of its variants: jobs, retries, the cache, and the Map that stops what is left."""

from __future__ import annotations

import datetime
import json
from typing import Any
from unittest.mock import MagicMock

from operations.account import Account
from operations.jobs.run import History, TrackedVariant

START = datetime.datetime(2026, 11, 20, tzinfo=datetime.timezone.utc)


class Machine:
    """An account whose Step Functions answers one history, newest first, two events a page, as AWS pages it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.asked = 0

    def add(self, kind: str, previous: int = 0, **details: Any) -> int:
        """One more event; returns its id."""
        number = len(self.events) + 1
        when = START + datetime.timedelta(seconds=number)
        self.events.append({"id": number, "type": kind, "previousEventId": previous, "timestamp": when, **details})
        return number

    def iteration(self, kind: str, index: int, previous: int = 0, name: str = "Variants") -> int:
        """MapIteration..."""
        key = f"mapIteration{kind}EventDetails"
        return self.add(f"MapIteration{kind}", previous, **{key: {"name": name, "index": index}})

    def job(self, previous: int, name: str) -> int:
        """A Task that makes a Processing job."""
        details = {"resource": "createProcessingJob", "parameters": json.dumps({"ProcessingJobName": name})}
        return self.add("TaskScheduled", previous, taskScheduledEventDetails=details)

    def left(self, name: str, previous: int = 0) -> int:
        """MapStateSucceeded and MapStateExited, which follow the last iteration's end."""
        succeeded = self.add("MapStateSucceeded", previous)
        return self.add("MapStateExited", succeeded, stateExitedEventDetails={"name": name})

    @property
    def account(self) -> Account:
        """What History asks."""
        client = MagicMock()
        client.get_paginator.return_value.paginate.side_effect = self._pages
        account = Account()
        account.__dict__["stepfunctions"] = client
        return account

    def _pages(self, **_: Any) -> Any:
        newest_first = self.events[::-1]
        for begin in range(0, len(newest_first), 2):
            self.asked += 1
            yield {"events": newest_first[begin : begin + 2]}


def followed(machine: Machine, count: int = 2) -> History:
    """A history of `count` variants."""
    return History(
        machine.account, "arn", [TrackedVariant(str(index), f"variant {index}", "k") for index in range(count)]
    )


def states(history: History) -> list[str]:
    """The state of each variant."""
    return [variant.state for variant in history.variants.values()]


def test_a_variant_without_a_job_came_from_the_cache() -> None:
    machine = Machine()
    history = followed(machine)
    history.refresh()
    assert states(history) == ["waiting", "waiting"]
    first = machine.iteration("Started", 0)
    second = machine.iteration("Started", 1)
    looked = machine.add("TaskScheduled", first, taskScheduledEventDetails={"resource": "listObjectsV2"})
    job = machine.job(second, "depth-1-0")
    history.refresh()
    assert states(history) == ["running", "running"]
    machine.iteration("Succeeded", 0, looked)
    left = machine.left("Variants", machine.iteration("Succeeded", 1, job))
    history.refresh()
    machine.job(left, "of no variant")
    machine.add("ExecutionSucceeded")
    history.refresh()
    assert states(history) == ["cached", "done"]
    assert [variant.jobs for variant in history.variants.values()] == [[], ["depth-1-0"]]
    assert history.variants["1"].to_json()["seconds"] == 4.0


def test_every_try_of_a_variant_is_one_of_its_jobs() -> None:
    machine = Machine()
    history = followed(machine, 1)
    before = machine.iteration("Started", 0)
    for name in ("depth-0-0", "depth-0-1"):
        before = machine.add("WaitStateEntered", machine.job(before, name))
    history.refresh()
    assert history.variants["0"].jobs == ["depth-0-0", "depth-0-1"]


def test_a_failed_variant_stops_the_others_and_the_map_that_stops_jobs_is_no_map_of_variants() -> None:
    machine = Machine()
    history = followed(machine)
    machine.job(machine.iteration("Started", 0), "depth-0-0")
    machine.job(machine.iteration("Started", 1), "depth-1-0")
    machine.iteration("Failed", 1)
    machine.iteration("Aborted", 0)
    machine.left("Variants")
    machine.iteration("Started", 0, name="Stop jobs")
    machine.iteration("Succeeded", 0, name="Stop jobs")
    machine.left("Stop jobs")
    machine.add("ExecutionFailed")
    history.refresh()
    assert states(history) == ["stopped", "failed"]


def test_what_ran_at_the_time_limit_was_stopped() -> None:
    machine = Machine()
    history = followed(machine, 1)
    machine.job(machine.iteration("Started", 0), "depth-0-0")
    machine.add("ExecutionTimedOut")
    history.refresh()
    assert states(history) == ["stopped"]


def test_a_long_history_is_not_read_twice() -> None:
    machine = Machine()
    history = followed(machine, 1)
    machine.iteration("Started", 0)
    for _ in range(99):
        machine.add("WaitStateEntered", 1)
    history.refresh()
    machine.asked = 0
    machine.add("WaitStateEntered", 1)
    history.refresh()
    assert machine.asked <= 2
