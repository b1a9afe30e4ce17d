"""One server for all tests of this room; each test uses names of its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.embedded_aws.running import Aws, running, wait_for


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """The server."""
    with running(tmp_path_factory.mktemp("aws"), "--wait-speed", "100", "--limit-speed", "60") as found:
        yield found


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}"


class Stacks:
    """Stacks by boto3: `up` creates or updates, waits and gives back the description."""

    def __init__(self, aws: Aws) -> None:
        self.client = aws.client("cloudformation")

    def up(self, name: str, template: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
        body = template if isinstance(template, str) else json.dumps(template)
        given = {"StackName": name, "TemplateBody": body, "Capabilities": ["CAPABILITY_NAMED_IAM"], **more}
        present = {stack["StackName"] for stack in self.client.describe_stacks()["Stacks"]}
        (self.client.update_stack if name in present else self.client.create_stack)(**given)
        return self.settled(name)

    def settled(self, name: str) -> dict[str, Any]:
        def stack() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.describe_stacks(StackName=name)["Stacks"][0]
            return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

        return wait_for(stack, f"stack {name} settles")

    def down(self, name: str) -> str:
        """Delete; the last status."""
        stack_id = self.client.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
        self.client.delete_stack(StackName=name)
        return self.settled(stack_id)["StackStatus"]

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """Logical id, status and reason, oldest first."""
        events = self.client.describe_stack_events(StackName=name)["StackEvents"]
        rows = [(e["LogicalResourceId"], e["ResourceStatus"], e.get("ResourceStatusReason", "")) for e in events]
        return rows[::-1]

    def failures(self, name: str) -> dict[str, str]:
        """Logical id to reason of what failed."""
        return {logical: reason for logical, status, reason in self.events(name) if status.endswith("_FAILED")}

    def physical(self, name: str) -> dict[str, str]:
        """Logical id to physical id."""
        rows = self.client.describe_stack_resources(StackName=name)["StackResources"]
        return {row["LogicalResourceId"]: row["PhysicalResourceId"] for row in rows}


@pytest.fixture
def stacks(aws: Aws) -> Stacks:
    return Stacks(aws)


@pytest.fixture
def outputs() -> Callable[[dict[str, Any]], dict[str, str]]:
    return lambda stack: {item["OutputKey"]: item["OutputValue"] for item in stack.get("Outputs", [])}
