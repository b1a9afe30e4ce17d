"""The text of a definition: what Python says is what Step Functions reads."""

from __future__ import annotations

import json
from typing import Any

from aws_cdk import App, Stack
from aws_cdk import aws_logs as logs
from aws_cdk.assertions import Template

from cdk.constructs.state_machine import StateMachine


def joined(value: Any) -> str:
    """The text of a template's value, a token as its JSON."""
    if isinstance(value, str):
        return value
    parts = value["Fn::Join"][1] if "Fn::Join" in value else [value]
    return "".join(part if isinstance(part, str) else "TOKEN" for part in parts)


def test_a_null_result_path_arrives_and_tokens_are_resolved() -> None:
    stack = Stack(App(), "Stack")
    definition = {
        "StartAt": "One",
        "States": {"One": {"Type": "Pass", "Result": stack.region, "ResultPath": None, "End": True}},
    }
    log_group = logs.LogGroup(stack, "Log")
    StateMachine(stack, "M", definition=definition, statements=[], log_group=log_group, description="one state")
    (machine,) = Template.from_stack(stack).find_resources("AWS::StepFunctions::StateMachine").values()
    found = json.loads(joined(machine["Properties"]["DefinitionString"]))
    assert found["States"]["One"] == {"Type": "Pass", "Result": "TOKEN", "ResultPath": None, "End": True}
