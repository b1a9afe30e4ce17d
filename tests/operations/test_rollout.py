"""`wait` and `smoke --during-rollout`, of endpoints and stacks that change as the test says."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from operations import locked as locking
from operations.errors import OperationError
from operations.rollout import during_rollout, wait
from tests.operations.conftest import write_lock


def account_of(*states: tuple[str, int, int, str], failure: str = "") -> Any:
    """An account of (endpoint's status, instances, wanted instances, stack's status), one a look; the last stays."""
    looks: Iterator[tuple[str, int, int, str]] = iter(states)
    current = list(states[:1])

    def describe_stacks(**_: Any) -> Any:
        current[0] = next(looks, current[0])
        if not current[0][3]:
            raise ClientError({"Error": {"Code": "ValidationError", "Message": "does not exist"}}, "DescribeStacks")
        return {"Stacks": [{"StackStatus": current[0][3]}]}

    def describe_endpoint(**_: Any) -> Any:
        status, now, wanted, _ = current[0]
        variant = {"CurrentInstanceCount": now, "DesiredInstanceCount": wanted}
        return {
            "EndpointStatus": status,
            "ProductionVariants": [variant],
            **({"FailureReason": failure} if failure else {}),
        }

    return SimpleNamespace(
        cloudformation=SimpleNamespace(describe_stacks=describe_stacks),
        sagemaker=SimpleNamespace(describe_endpoint=describe_endpoint),
        guard=lambda **_: None,
    )


def test_wait_returns_when_neither_update_nor_scaling_nor_stack_runs() -> None:
    account = account_of(
        ("Updating", 1, 1, "UPDATE_IN_PROGRESS"), ("InService", 1, 3, "UPDATE_IN_PROGRESS"),
        ("InService", 3, 3, "UPDATE_IN_PROGRESS"), ("InService", 2, 3, "UPDATE_COMPLETE"),
        ("InService", 3, 3, "UPDATE_COMPLETE"), ("Updating", 9, 9, "UPDATE_IN_PROGRESS"),
    )  # fmt: skip
    seen: list[str] = []
    settled = wait("depth", account, seen.append, poll=0)
    assert (settled.status, settled.instances, settled.stack) == ("InService", 3, "UPDATE_COMPLETE")
    assert len(seen) == 5
    assert seen[1] == "InService, 1 of 3 instances, stack UPDATE_IN_PROGRESS"
    assert (
        wait("depth", account_of(("InService", 1, 1, ""), failure="taken back"), seen.append, poll=0).failure
        == "taken back"
    )


@pytest.fixture
def locked(project: Path) -> locking.Locked:
    body = base64.b64encode(b"x").decode()
    request = {"content_type": "text/plain", "accept": "application/json", "body": body}
    sample = {"request": request, "answer": {"content_type": "application/json", "json": 1, "tolerance": 0}}
    (project / "endpoints/depth.yaml").open("a").write("alarms: {min_requests: 6000}\n")
    write_lock(project, rehearsal=True, sample=sample)
    return locking.load("depth", project, rehearsal=True)


def test_requests_are_sent_from_before_the_rollout_to_its_end(locked: locking.Locked) -> None:
    account = account_of(
        ("InService", 1, 1, "UPDATE_COMPLETE"), ("InService", 1, 1, "UPDATE_IN_PROGRESS"),
        ("Updating", 1, 1, "UPDATE_IN_PROGRESS"), ("InService", 1, 1, "UPDATE_IN_PROGRESS"),
        ("InService", 1, 1, "UPDATE_COMPLETE"),
    )  # fmt: skip
    bodies: list[bytes] = []

    def invoke_endpoint(**given: Any) -> Any:
        bodies.append(given["Body"])
        if len(bodies) == 3:
            error = {
                "Error": {"Code": "ModelError", "Message": "m"},
                "OriginalStatusCode": 500,
                "OriginalMessage": "no",
            }
            raise ClientError(error, "InvokeEndpoint")  # type: ignore[arg-type]
        return {"Body": SimpleNamespace(read=lambda: b"1"), "ContentType": "application/json"}

    account.runtime = SimpleNamespace(invoke_endpoint=invoke_endpoint)
    sent = during_rollout(locked, account, poll=0.1)
    assert sent.requests == len(bodies) > 20  # 120 a second for 0.4 s, and more than one a look
    assert (sent.failed, sent.first) == (1, "invoking depth failed: the container answered 500: no")
    with pytest.raises(OperationError, match="no rollout of depth began"):
        during_rollout(locked, account, poll=0.01, within=0.05)
