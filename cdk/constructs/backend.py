"""What a place of compiling brings to a compile stack, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import aws_iam as iam

from ..states.asl import States
from ..states.run import Workflow


@dataclass(frozen=True, kw_only=True)
class ComputeBackend:
    """The states of its jobs, what the machines need for them, and where the jobs write their logs.

    stop: states from "List jobs" to "All stopped" that end what a run left running.
    any_resource: why statements have actions that take no resource, for cdk-nag. patterns: resources that statements
    name by a pattern, each with the reason, also for cdk-nag.
    log_group: name of the jobs' own log group; None where they have none.
    """

    workflow: Workflow
    stop: States
    run_statements: Sequence[iam.PolicyStatement]
    stop_statements: Sequence[iam.PolicyStatement]
    log_group: str | None
    run_any_resource: str = ""
    stop_any_resource: str = ""
    run_patterns: Mapping[str, str]
    stop_patterns: Mapping[str, str]
