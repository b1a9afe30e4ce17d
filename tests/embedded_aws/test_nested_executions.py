"""states:startExecution: one machine starts another, with parameters as AWS writes them."""

from __future__ import annotations

import json

from tests.embedded_aws.machines import Machines
from tests.embedded_aws.running import Aws, wait_for

PASS = {"Type": "Pass", "End": True}


def test_a_machine_starts_another_and_keeps_its_own_data(aws: Aws, name: str) -> None:
    machines, others = Machines(aws, name), Machines(aws, f"{name}-other")
    other = others.make({"Done": PASS})
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution",
        "Parameters": {"StateMachineArn": other, "Name": "started", "Input": {"given.$": "$.a"}},
        "ResultPath": None,
        "End": True,
    }
    ended = machines.run({"Start": task}, {"a": 1})
    assert (ended["status"], ended["output"]) == ("SUCCEEDED", {"a": 1})
    (row,) = machines.client.list_executions(stateMachineArn=other)["executions"]
    wait_for(lambda: machines.client.describe_execution(executionArn=row["executionArn"])["status"] != "RUNNING", "end")
    found = machines.client.describe_execution(executionArn=row["executionArn"])
    assert (found["name"], json.loads(found["input"])) == ("started", {"given": 1})
