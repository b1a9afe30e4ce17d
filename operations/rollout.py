"""Updates of an endpoint: whether one runs, its end, requests while it runs, and the alarms that take it back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .account import Account, stack_of, stack_status
from .errors import OperationError
from .locked import Locked, guard
from .smoke import describe, invoke

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import DescribeEndpointOutputTypeDef

POLL_SECONDS = 5.0
BEGIN_SECONDS = 600.0  # synthesis, the change set, and somebody who begins with this
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html, EndpointStatus
_CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_PARALLEL = 32  # requests that wait for their answers at once
_MARGIN = 1.2  # so that no minute of the alarms, which begins anywhere, gets one request too few
_MOST_TRIGGERS = 5  # https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_RollbackConfiguration.html


@dataclass(frozen=True)
class Settled:
    """An endpoint on which nothing runs. stack: CloudFormation's status, "" where the endpoint has no stack."""

    name: str
    status: str
    stack: str
    instances: int
    failure: str = ""


@dataclass(frozen=True)
class Sent:
    """What was asked during a rollout; failed are errors of the endpoint, first the first one's text."""

    requests: int
    failed: int
    first: str = ""


def runs(endpoint: DescribeEndpointOutputTypeDef, stack: str) -> bool:
    """Whether an update or scaling runs: of the endpoint, of its number of instances, or of its stack.

    CloudFormation watches the alarms for a while after the endpoint is InService.
    """
    variants = endpoint.get("ProductionVariants", [])
    scaling = any(row.get("CurrentInstanceCount") != row.get("DesiredInstanceCount") for row in variants)
    updating = stack.endswith("_IN_PROGRESS") and stack != "REVIEW_IN_PROGRESS"
    return scaling or updating or endpoint["EndpointStatus"] in _CHANGING


def wait(name: str, account: Account, seen: Callable[[str], None], poll: float = POLL_SECONDS) -> Settled:
    """Return once nothing runs on the endpoint. seen: called with each status that is new.

    Raises:
        OperationError: there is no such endpoint.
    """
    shown = ""
    while True:
        stack, endpoint = stack_status(name, account), describe(name, account)
        variants = endpoint.get("ProductionVariants", [])
        now, wanted = (
            sum(row.get(key, 0) for row in variants)  # type: ignore[misc]
            for key in ("CurrentInstanceCount", "DesiredInstanceCount")
        )
        text = f"{endpoint['EndpointStatus']}, {now} of {wanted} instances, stack {stack or 'none'}"
        if text != shown:
            seen(text)
            shown = text
        if not runs(endpoint, stack):
            return Settled(name, endpoint["EndpointStatus"], stack, now, endpoint.get("FailureReason", ""))
        time.sleep(poll)


def during_rollout(locked: Locked, account: Account, poll: float = POLL_SECONDS, within: float = BEGIN_SECONDS) -> Sent:
    """Send the lock's sample until the next rollout is over, alarms.min_requests a minute and a few more.

    With fewer the alarms that should take a bad update back stay quiet. What is answered is not compared, since old and
    new instances answer beside each other.

    Raises:
        OperationError: no sample, no such endpoint, or none that begins `within` so many seconds.
    """
    name, sample = locked.lock.name, locked.lock.sample
    guard(account, locked.lock)
    if sample is None:
        raise OperationError(f"the lock of {name} holds no sample: its model's definition has none.")
    describe(name, account)
    errors: list[str] = []

    def ask() -> None:
        try:
            invoke(name, account, sample.request, sample.request.body)
        except OperationError as error:
            errors.append(str(error))

    over, requests = threading.Event(), 0
    with ThreadPoolExecutor(1) as watching, ThreadPoolExecutor(_PARALLEL) as pool:
        watcher = watching.submit(_watch, name, account, poll, within, over)
        for _ in _beats(60 / (locked.spec.alarms.min_requests * _MARGIN), over):
            pool.submit(ask)
            requests += 1
        if not watcher.result():
            raise OperationError(
                f'no rollout of {name} began. Start it in another shell: "cdk deploy {stack_of(name)}".'
            )
    return Sent(requests, len(errors), errors[0] if errors else "")


def _watch(name: str, account: Account, poll: float, within: float, over: threading.Event) -> bool:
    """Set `over` once a rollout has come and gone, or none came; whether one came."""
    end, came = time.monotonic() + within, False
    try:
        while (running := runs(describe(name, account), stack_status(name, account))) or (
            not came and time.monotonic() < end
        ):
            came = came or running
            time.sleep(poll)
    finally:
        over.set()
    return came


def _beats(seconds: float, over: threading.Event) -> Iterator[None]:
    """One at each multiple of `seconds` from now on, however long what is done in between takes."""
    due = time.monotonic()
    while not over.wait(max(0.0, due - time.monotonic())):
        yield
        due += seconds


def guarded_deploy(name: str, account: Account, minutes: int) -> list[str]:
    """The arguments of the CDK CLI that deploy an endpoint's stack with its own alarms as rollback triggers.

    --exclusively, since the triggers would go to each stack that is deployed. aws-cdk 2.1148: `cdk deploy --help`.

    Raises:
        OperationError: before the first deployment, when there are no alarms yet (an operation with a trigger that is
            missing fails: API_RollbackConfiguration), or while one rings.
    """
    stack = stack_of(name)
    if stack_status(name, account) in ("", "REVIEW_IN_PROGRESS"):
        raise OperationError(
            f'stack {stack} has no alarms before its first deployment: "cdk deploy {stack}", then this.'
        )
    pages = account.cloudformation.get_paginator("list_stack_resources").paginate(StackName=stack)
    rows = [row for page in pages for row in page["StackResourceSummaries"]]
    names = [row.get("PhysicalResourceId", "") for row in rows if row["ResourceType"] == "AWS::CloudWatch::Alarm"]
    alarms = account.cloudwatch.describe_alarms(AlarmNames=names)["MetricAlarms"] if names else []
    if not alarms:
        raise OperationError(f'stack {stack} has no alarms. Deploy it again: "cdk deploy {stack}".')
    ringing = [alarm["AlarmName"] for alarm in alarms if alarm["StateValue"] == "ALARM"]
    if ringing:
        raise OperationError(
            f"{', '.join(ringing)} is in the state ALARM: the update would be taken back. Mend that first, "
            f'or deploy without triggers: "cdk deploy {stack} --rollback-trigger-alarm-arns none".'
        )
    arns = sorted(alarm["AlarmArn"] for alarm in alarms)[:_MOST_TRIGGERS]
    triggers = [part for arn in arns for part in ("--rollback-trigger-alarm-arns", arn)]
    return ["deploy", stack, "--exclusively", *triggers, "--monitoring-time-minutes", str(minutes)]
