"""The deployed stack InferentiaCompile-NAME, and its runs: the executions of its state machine.

A run has one name for a build digest and number, so that of two at the same moment one wins.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from endpoint_spec import jobs
from endpoint_spec.quantities import format_duration

from ..account import Account, code_of
from ..errors import OperationError, WrongUseError

if TYPE_CHECKING:
    import endpoint_spec as specs
    from endpoint_spec.endpoint import Job


@dataclass(frozen=True)
class CompileStack:
    """What the stack's outputs say. cost_limit is text for a person, from the dated price table."""

    stack: str
    state_machine: str
    log_group: str
    where: str
    time_limit: timedelta
    cost_limit: str
    machine_image: str | None = None  # of EC2 alone


def job_of(spec: specs.EndpointSpec) -> Job:
    """The spec's job section.

    Raises:
        WrongUseError: where it has none.
    """
    if spec.job is None:
        raise WrongUseError(
            f"endpoints/{spec.path.name} has no section job:, so nothing of it is compiled in an account. Add "
            f'"job: {{where: processing}}" and deploy InferentiaCompile-{spec.name}, or build on a machine with the '
            f"Neuron SDK: inferentia build {spec.name}."
        )
    return spec.job


def find(spec: specs.EndpointSpec, account: Account) -> CompileStack:
    """Read the stack's outputs and hold them against the spec.

    Raises:
        WrongUseError: a spec without a job section.
        OperationError: a stack that is not deployed, or that another version or another job section deployed.
    """
    job = job_of(spec)
    name = f"InferentiaCompile-{spec.name}"
    outputs = account.outputs(name, "StateMachineArn", "JobLogGroup", "Where", "TimeLimitSeconds", "CostLimit")
    found = CompileStack(
        stack=name,
        state_machine=outputs["StateMachineArn"],
        log_group=outputs["JobLogGroup"],
        where=outputs["Where"],
        time_limit=timedelta(seconds=_seconds(name, outputs["TimeLimitSeconds"])),
        cost_limit=outputs["CostLimit"],
        machine_image=outputs.get("MachineImage"),
    )
    limits = format_duration(found.time_limit), format_duration(job.time_limit)
    for key, (deployed, wanted) in {"where": (found.where, job.where), "time_limit": limits}.items():
        if deployed != wanted:
            raise OperationError(
                f"{name} was deployed with job.{key} {deployed}, the spec says {wanted}. "
                f'Deploy it again: "cdk deploy {name}".'
            )
    return found


def _seconds(stack: str, text: str) -> int:
    if not text.isdigit():
        raise OperationError(
            f"the output TimeLimitSeconds of {stack} is {text!r}, not a number of seconds. "
            f'It was deployed by another version; deploy it again: "cdk deploy {stack}".'
        )
    return int(text)


_TRIES = 5  # an ended run's name stays taken for 90 days, and ListExecutions lags behind (Step Functions API reference)


@dataclass(frozen=True)
class Execution:
    """One run as Step Functions describes it. given: its input. error, cause: set where it failed."""

    run: str
    arn: str
    status: str
    started: datetime
    stopped: datetime | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    cause: str | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.status == "RUNNING"


def describe(account: Account, arn: str) -> Execution:
    """A run with its input, and what became of it."""
    found = account.stepfunctions.describe_execution(executionArn=arn)
    return Execution(
        run=found["name"],
        arn=found["executionArn"],
        status=found["status"],
        started=found["startDate"],
        stopped=found.get("stopDate"),
        given=json.loads(found.get("input") or "{}"),
        output=json.loads(found.get("output") or "{}"),
        error=found.get("error"),
        cause=found.get("cause"),
    )


def runs(account: Account, stack: CompileStack) -> list[Execution]:
    """Every run of the stack's state machine, newest first, without input and output.

    Raises:
        OperationError: where the state machine is gone.
    """
    found = []
    try:
        for page in account.stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=stack.state_machine
        ):
            for row in page["executions"]:
                stopped = row.get("stopDate")
                found.append(Execution(row["name"], row["executionArn"], row["status"], row["startDate"], stopped))
    except ClientError as error:
        if code_of(error) != "StateMachineDoesNotExist":
            raise
        raise OperationError(
            f"the state machine of {stack.stack} is gone, although its stack is there. "
            f'Deploy it again: "cdk deploy {stack.stack}".'
        ) from error
    return sorted(found, key=lambda execution: execution.started, reverse=True)


def start(account: Account, stack: CompileStack, plan: jobs.Plan, given: Mapping[str, Any]) -> Execution:
    """Start a run of a plan under the next free number. given: its input, but for its name.

    Each start carries a random submission id: of two at the same moment, Step Functions refuses one.

    Raises:
        OperationError: where a run of this build digest is running, naming it.
    """
    stem = jobs.run_stem(plan.name, plan.build_digest)
    for _ in range(_TRIES):
        earlier = [one for one in runs(account, stack) if one.run.startswith(stem)]
        for one in earlier:
            if one.running:
                raise already_running(one)
        run = _free_name(plan, [one.run.removeprefix(stem) for one in earlier])
        named = {"run": run, "submission": secrets.token_hex(16), **given}
        try:
            started = account.stepfunctions.start_execution(
                stateMachineArn=stack.state_machine, name=run, input=json.dumps(named)
            )
        except ClientError as error:
            if code_of(error) != "ExecutionAlreadyExists":
                raise
            arn = f"{stack.state_machine.replace(':stateMachine:', ':execution:')}:{run}"
            winner = describe(account, arn)
            if winner.running:
                raise already_running(winner) from error
            continue
        return describe(account, started["executionArn"])
    raise OperationError(
        f"no free name for a run of {stack.stack} was found in {_TRIES} tries: others start and end runs of the same "
        "build at this moment. Look at them with attach, then try again."
    )


def _free_name(plan: jobs.Plan, numbers: list[str]) -> str:
    try:
        last = max((int(number) for number in numbers if number.isdigit()), default=0)
        return jobs.run_name(plan.name, plan.build_digest, last + 1)
    except jobs.JobError as error:
        raise OperationError(str(error)) from error


def already_running(execution: Execution) -> OperationError:
    """The one that lost says who won."""
    name = execution.run.rsplit("-", 2)[0]
    return OperationError(
        f"run {execution.run} of this very build is running since {execution.started:%Y-%m-%d %H:%M:%S %Z}; "
        f'nothing was started. Follow it with "inferentia attach {name}", or end it with '
        f'"aws stepfunctions stop-execution --execution-arn {execution.arn}".'
    )
