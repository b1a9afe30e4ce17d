"""State machines for the tests, by boto3."""

from __future__ import annotations

import json
from typing import Any

from tests.embedded_aws.running import Aws, wait_for
from tests.embedded_aws.work import trust


class Machines:
    """State machines of one test; all begin with its name."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws, self.name, self.client = aws, name, aws.client("stepfunctions")
        created = aws.client("iam").create_role(
            RoleName=f"{name}-machine", AssumeRolePolicyDocument=trust("states.amazonaws.com")
        )
        self.role = created["Role"]["Arn"]

    def make(self, states: dict[str, Any], name: str | None = None, **more: Any) -> str:
        """A machine whose first state is the first of `states`; its ARN."""
        definition = {"StartAt": next(iter(states)), "States": states, **more}
        made = self.client.create_state_machine(
            name=name or self.name, definition=json.dumps(definition), roleArn=self.role
        )
        return str(made["stateMachineArn"])

    def start(self, machine: str, given: Any = None, **more: Any) -> str:
        """Start an execution; its ARN."""
        started = self.client.start_execution(stateMachineArn=machine, input=json.dumps(given or {}), **more)
        return str(started["executionArn"])

    def ended(self, execution: str) -> dict[str, Any]:
        """The description once it has ended."""

        def described() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.describe_execution(executionArn=execution)
            return None if found["status"] == "RUNNING" else found

        return dict(wait_for(described, "the execution ends"))

    def run(self, states: dict[str, Any], given: Any = None, name: str | None = None) -> dict[str, Any]:
        """Make a machine, start it and wait; `output` is decoded."""
        ended = self.ended(self.start(self.make(states, name), given))
        return {**ended, "output": json.loads(ended["output"])} if "output" in ended else ended

    def history(self, execution: str) -> list[str]:
        """The types of its events."""
        return [event["type"] for event in self.client.get_execution_history(executionArn=execution)["events"]]


def call(action: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A Task state of an AWS SDK integration, such as call("s3:getObject", ...); the last without `Next`."""
    end = {} if "Next" in more else {"End": True}
    return {"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:{action}", "Parameters": parameters, **end, **more}
