"""The deployed stack InferentiaCompile-NAME: where its state machine is and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from endpoint_spec.quantities import format_duration
from operations.account import Account
from operations.errors import OperationError, WrongUseError

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
            f"Neuron SDK: python -m compile build {spec.name}."
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
    told = {"where": (found.where, job.where), "time_limit": (_text(found.time_limit), _text(job.time_limit))}
    for key, (deployed, wanted) in told.items():
        if deployed != wanted:
            raise OperationError(
                f"{name} was deployed with job.{key} {deployed}, the spec says {wanted}. "
                f'Deploy it again: "cdk deploy {name}".'
            )
    return found


def _text(duration: timedelta) -> str:
    return format_duration(duration)


def _seconds(stack: str, text: str) -> int:
    if not text.isdigit():
        raise OperationError(
            f"the output TimeLimitSeconds of {stack} is {text!r}, not a number of seconds. "
            f'It was deployed by another version; deploy it again: "cdk deploy {stack}".'
        )
    return int(text)
