"""Runs a definition in moto's Step Functions interpreter, against services that a test makes up."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

# moto gives each Task its client by this function.
CLIENT = "moto.stepfunctions.parser.asl.component.state.exec.state_task.service.{}.boto_client_for"
# The pause of a Retry, which a test does not wait for.
PAUSE = "moto.stepfunctions.parser.asl.component.common.retry.retrier_decl.time"
SESSION = boto3.Session()  # one, which reads the SDK's own data once
ROLE = "arn:aws:iam::123456789012:role/machine"


def refused(code: str, message: str, operation: str = "Operation") -> ClientError:
    """An SDK's exception: of a class of its own where the service has one for the code, else the general one."""
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 400, "RequestId": "r"},
    }
    modelled = type(code, (ClientError,), {}) if code.endswith(("Exceeded", "InUse")) else ClientError
    return modelled(response, operation)  # type: ignore[no-any-return]


@dataclass
class Services:
    """AWS as the test says: answers by operation, such as create_processing_job. calls: what was asked, in order."""

    answers: dict[str, Callable[..., Any]]
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, **_: Any) -> Services:
        return self

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        answer = self.answers[operation]

        def call(**parameters: Any) -> Any:
            self.calls.append((operation, parameters))
            return answer(**parameters)

        return call

    def of(self, operation: str) -> list[dict[str, Any]]:
        """The parameters of every call of an operation."""
        return [parameters for name, parameters in self.calls if name == operation]


@dataclass(frozen=True)
class Ended:
    """How an execution ended."""

    status: str
    output: Any
    error: str | None
    cause: str | None
    events: int


_parsed: dict[str, Any] = {}
_parse = AmazonStateLanguageParser.parse


def _parse_once(definition: str) -> tuple[Any, None]:
    """moto parses a definition when a machine is made and again for each execution, slower than it runs it."""
    if definition not in _parsed:
        _parsed[definition], _ = _parse(definition)
    return copy.deepcopy(_parsed[definition]), None  # what is executed counts its own retries


@contextmanager
def interpreter() -> Iterator[Any]:
    """A Step Functions client whose executions really run."""
    with (
        mock.patch.object(AmazonStateLanguageParser, "parse", _parse_once),
        mock_aws(config={"stepfunctions": {"execute_state_machine": True}}),
    ):
        yield SESSION.client("stepfunctions", region_name="us-east-1")


def run(
    definition: dict[str, Any], given: dict[str, Any], services: Services, name: str = "depth-0123456789ab-1"
) -> Ended:
    """Create a machine of the definition, execute it and wait for its end (at most 30 seconds)."""
    patches = [
        mock.patch(CLIENT.format(module), services)
        for module in ("state_task_service_aws_sdk", "state_task_service_sfn")
    ]
    with interpreter() as client, patches[0], patches[1], mock.patch(PAUSE, mock.Mock()):
        machine = client.create_state_machine(name="machine", definition=json.dumps(definition), roleArn=ROLE)
        arn = client.start_execution(stateMachineArn=machine["stateMachineArn"], name=name, input=json.dumps(given))[
            "executionArn"
        ]
        # Polled inside moto: to serialize a history for a client takes longer than to run it.
        execution = stepfunctions_parser_backends["123456789012"]["us-east-1"].describe_execution(arn)
        for _ in range(600):
            if execution.exec_status != ExecutionStatus.RUNNING:
                break
            time.sleep(0.05)
        events = len(execution.to_history_output()["events"])
        found = client.describe_execution(executionArn=arn)
    output = json.loads(found["output"]) if "output" in found else None
    return Ended(found["status"], output, found.get("error"), found.get("cause"), events)
