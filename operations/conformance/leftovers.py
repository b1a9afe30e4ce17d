"""What a conformance run leaves in an account, found by its name, and taken away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from botocore.exceptions import BotoCoreError, ClientError

from ..account import ARTIFACTS_STACK, Account, code_of, stack_status_of
from ..empty_bucket import empty, versions
from ..errors import OperationError
from .project import NAME, STACK, Say

PREFIX = f"models/{NAME}/"
POLL_SECONDS = 5.0
SETTLE_MINUTES = 60.0


def found(account: Account) -> list[str]:
    """Names of what is there: the stack, the endpoint and artifacts."""
    names = [f"stack {STACK} ({status})"] if (status := stack_status_of(STACK, account)) else []
    names += [f"endpoint {NAME}"] if _endpoint(account) else []
    if stack_status_of(ARTIFACTS_STACK, account):
        bucket = account.artifact_bucket
        names += [f"s3://{bucket}/{key}" for key, *_ in _objects(account, bucket)]
    return names


def remove(account: Account, say: Say) -> list[str]:
    """Delete all of it; what could not be deleted is returned, with the reason."""
    problems = [
        *_tried(f"stack {STACK}", lambda: _delete_stack(account, say)),
        *_tried(f"artifacts below {PREFIX}", lambda: _remove_artifacts(account)),
    ]
    left = _tried("looking for what is left", lambda: problems.extend(found(account)))
    return [*problems, *left]


def _tried(what: str, action: Callable[[], None]) -> list[str]:
    try:
        action()
    except (OperationError, ClientError, BotoCoreError) as error:
        return [f"{what}: {error}"]
    return []


def _delete_stack(account: Account, say: Say) -> None:
    """Delete the stack once nothing runs on it. One that is updated cannot be deleted, one that is created can.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DeleteStack.html
    """
    status = _settled(account, lambda status: not status.endswith("_IN_PROGRESS") or "CREATE" in status)
    if not status:
        return
    say(f"deleting stack {STACK} ({status})")
    account.cloudformation.delete_stack(StackName=STACK)
    status = _settled(account, lambda status: status == "DELETE_FAILED")
    if status:
        raise OperationError(f"it is {status}; its events say why")


def _settled(account: Account, settled: Callable[[str], bool]) -> str:
    end = time.monotonic() + SETTLE_MINUTES * 60
    while (status := stack_status_of(STACK, account)) and not settled(status):
        if time.monotonic() > end:
            raise OperationError(f"it is {status} for more than {SETTLE_MINUTES:g} minutes")
        time.sleep(POLL_SECONDS)
    return status


def _remove_artifacts(account: Account) -> None:
    if stack_status_of(ARTIFACTS_STACK, account):
        bucket = account.artifact_bucket
        empty(account, bucket, list(_objects(account, bucket)))


def _objects(account: Account, bucket: str) -> Iterator[tuple[str, str, int]]:
    return (row for row in versions(account, bucket) if row[0].startswith(PREFIX))


def _endpoint(account: Account) -> bool:
    try:
        account.sagemaker.describe_endpoint(EndpointName=NAME)
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
        return False
    return True
