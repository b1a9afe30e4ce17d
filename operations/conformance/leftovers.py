"""What a conformance run leaves in an account, found by its name, and taken away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from botocore.exceptions import BotoCoreError, ClientError

from ..account import ARTIFACTS_STACK, Account, code_of, stack_status_of
from ..empty_bucket import empty, versions
from ..errors import OperationError
from .project import NAME, STACK, Project, Say

PREFIX = f"models/{NAME}/"
POLL_SECONDS = 5.0
SETTLE_MINUTES = 60.0


def found(project: Project, account: Account) -> list[str]:
    """Names of what is there: the stack, the endpoint, artifacts, and a stack of artifacts that a run made."""
    names = [f"stack {STACK} ({status})"] if (status := stack_status_of(STACK, account)) else []
    if _endpoint(account):
        names.append(f"endpoint {NAME}")
    if stack_status_of(ARTIFACTS_STACK, account):
        bucket = _bucket(account)
        names += [f"s3://{bucket}/{key}" for key, *_ in _objects(account, bucket)]
        names += [f"stack {ARTIFACTS_STACK}, which a run made"] if project.made.exists() else []
    return names


def remove(project: Project, account: Account, say: Say) -> list[str]:
    """Delete all of it, through CloudFormation; what could not be deleted is returned, with the reason."""
    problems = [
        *_tried(f"stack {STACK}", lambda: _delete(STACK, account, say)),
        *_tried("artifacts", lambda: _remove_artifacts(project, account, say)),
    ]
    left = _tried("looking for what is left", lambda: problems.extend(found(project, account)))
    return [*problems, *left]


def _tried(what: str, action: Callable[[], None]) -> list[str]:
    try:
        action()
    except (OperationError, ClientError, BotoCoreError) as error:
        return [f"{what}: {error}"]
    return []


def _delete(stack: str, account: Account, say: Say) -> None:
    """Delete a stack once nothing runs on it. A stack that is updated cannot be deleted, one that is created can.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DeleteStack.html
    """
    status = _settled(stack, account, lambda status: not status.endswith("_IN_PROGRESS") or "CREATE" in status)
    if not status:
        return
    say(f"deleting stack {stack} ({status})")
    account.cloudformation.delete_stack(StackName=stack)
    status = _settled(stack, account, lambda status: status in ("", "DELETE_FAILED"))
    if status:
        raise OperationError(f"stack {stack} is {status}; its events say why")


def _settled(stack: str, account: Account, settled: Callable[[str], bool]) -> str:
    end = time.monotonic() + SETTLE_MINUTES * 60
    while True:
        status = stack_status_of(stack, account)
        if not status or settled(status):
            return status
        if time.monotonic() > end:
            raise OperationError(f"stack {stack} is {status} for more than {SETTLE_MINUTES:g} minutes")
        time.sleep(POLL_SECONDS)


def _remove_artifacts(project: Project, account: Account, say: Say) -> None:
    """The run's own objects; the whole bucket and its stack only where a run made them."""
    if stack_status_of(ARTIFACTS_STACK, account):
        bucket = _bucket(account)
        own = project.made.exists()
        empty(account, bucket, list(versions(account, bucket)) if own else list(_objects(account, bucket)))
        if own:
            _delete(ARTIFACTS_STACK, account, say)
    project.made.unlink(missing_ok=True)


def _objects(account: Account, bucket: str) -> Iterator[tuple[str, str, int]]:
    return (row for row in versions(account, bucket) if row[0].startswith(PREFIX)) if bucket else iter(())


def _bucket(account: Account) -> str:
    """The artifact bucket; "" of a stack that never had one."""
    stack = account.cloudformation.describe_stacks(StackName=ARTIFACTS_STACK)["Stacks"][0]
    outputs = {row.get("OutputKey"): row.get("OutputValue", "") for row in stack.get("Outputs", [])}
    return outputs.get("ArtifactBucketName", "")


def _endpoint(account: Account) -> bool:
    try:
        account.sagemaker.describe_endpoint(EndpointName=NAME)
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
        return False
    return True
