"""The machine of a run: compile the variants that the cache lacks, notify.

Its input is what `submit` writes: submission, bucket, project, wheels, variants. A run's name is its execution's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from endpoint_spec import jobs

from . import asl
from .asl import State, States
from .job import ARRIVED, FIRST, JobContext, find, job_name_prefix

# Of the 25,000 events that an execution's history may have, those that looking may take; a look makes nine: two of the
# Wait, five of the Task, two of the Choice. The rest is for starting variants, of which each takes some fifty.
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
EVENTS_FOR_LOOKS, EVENTS_PER_LOOK = 15_000, 9
SHORTEST_POLL = 30


def poll_seconds(time_limit: int, max_parallel: int) -> int:
    """Seconds between two looks at a job: 30, or more where a long and wide run would overflow its history."""
    return max(SHORTEST_POLL, math.ceil(max_parallel * time_limit * EVENTS_PER_LOOK / EVENTS_FOR_LOOKS))


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """How a run goes where it compiles. job: a job's states, see job_states. data: more that every job is given."""

    job: States
    data: dict[str, Any] = field(default_factory=dict)


def run_machine(
    context: JobContext, workflow: Workflow, *, time_limit: int, max_parallel: int, topics: Sequence[str], cleanup: str
) -> dict[str, Any]:
    """The whole definition. topics: ARNs that are notified. cleanup: ARN of the machine that ends what is left."""
    message = asl.filled(f"Run {{}} compiled endpoint {context.name}.", "$.run")
    failed = asl.filled(
        f"Run {{}} of endpoint {context.name} failed. {{}}: {{}}", "$.run", "$.failure.Error", "$.failure.Cause"
    )
    return {
        "Comment": f"Compiles the variants of endpoint {context.name}",
        "TimeoutSeconds": time_limit,
        "StartAt": "Prepare",
        "States": {
            "Prepare": _prepare(context, workflow),
            "Right bucket": asl.choice([(asl.text_is("$.bucket", context.bucket), "Variants")], "Wrong bucket"),
            "Wrong bucket": asl.fail(
                "CompileRunRefused",
                asl.filled(f"the input names bucket {{}}, but this stack compiles in {context.bucket}", "$.bucket"),
            ),
            "Variants": _variants(context, workflow, max_parallel),
            **notify("Notify of success", context, topics, f"Compiled {context.name}", message, "Finish"),
            "Finish": asl.pass_state({"run.$": "$.run", "variants.$": "$.variants"}, End=True),
            # Step Functions ends the other variants' iterations when one fails, not their jobs.
            "Stop the rest": _stop_the_rest(context, cleanup, "Notify of failure 0"),
            **notify("Notify of failure", context, topics, f"Compiling {context.name} failed", failed, "Failed"),
            "Failed": asl.fail("$.failure.Error", "$.failure.Cause"),
        },
    }


def _prepare(context: JobContext, workflow: Workflow) -> State:
    return asl.pass_state(
        {
            "run.$": "$$.Execution.Name",
            "stem.$": job_name_prefix(context.name, "$$.Execution.Name", "$.submission"),
            "submission.$": "$.submission",
            "bucket.$": "$.bucket",
            "project.$": "$.project",
            "wheels.$": "$.wheels",
            "variants.$": "$.variants",
            "waits": list(context.waits),
            **workflow.data,
        },
        Next="Right bucket",
    )


def _variants(context: JobContext, workflow: Workflow, max_parallel: int) -> State:
    given = ("run", "stem", "project", "wheels", "waits", *workflow.data)
    return {
        "Type": "Map",
        "ItemsPath": "$.variants",
        "MaxConcurrency": max_parallel,
        "ItemSelector": {
            **{f"{key}.$": f"$.{key}" for key in given},
            "index.$": "$$.Map.Item.Value.index",
            "key.$": "$$.Map.Item.Value.key",
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": "Look up",
            "States": _variant(context, workflow),
        },
        "ResultPath": "$.variants",
        "Catch": asl.catch("Stop the rest", "$.failure"),
        "Next": "Notify of success 0",
    }


def _variant(context: JobContext, workflow: Workflow) -> States:
    # What a variant's job leaves in the cache: one object, so that it is never half there.
    made = asl.filled(jobs.variant_key(context.name, "{}"), "$.key")
    outcome = {"index.$": "$.index", "key.$": "$.key"}
    return {
        "Look up": find(context, made, "In the cache"),
        "In the cache": asl.choice([(asl.above_zero("$.found.count"), "From the cache")], FIRST),
        "From the cache": asl.pass_state({**outcome, "cached": True}, End=True),
        **workflow.job,
        ARRIVED: find(context, made, "Is there"),
        "Is there": asl.choice([(asl.above_zero("$.found.count"), "Compiled")], "Missing"),
        "Missing": asl.fail(
            "CompiledVariantMissing", asl.filled("{} ended well, but its variant is not in the cache", "$.job.name")
        ),
        "Compiled": asl.pass_state({**outcome, "cached": False}, End=True),
    }


def _stop_the_rest(context: JobContext, cleanup: str, then: str) -> State:
    event = {"name.$": "$.run", "status": "FAILED", "input.$": "States.JsonToString($)"}
    return asl.task(
        f"arn:{context.partition}:states:::states:startExecution",
        {"StateMachineArn": cleanup, "Input": event},
        ResultPath=None,
        Retry=context.retry,
        # The rule on failed runs starts the same machine: that this call failed must not hide why the run did.
        Catch=asl.catch(then, "$.not_stopped"),
        Next=then,
    )


def notify(step: str, context: JobContext, topics: Sequence[str], subject: str, message: str, then: str) -> States:
    """A state for each topic, entered at "{step} 0". A notification that fails does not fail a run."""
    states = {}
    for number, topic in enumerate(topics):
        following = f"{step} {number + 1}" if number + 1 < len(topics) else then
        states[f"{step} {number}"] = context.call(
            "sns:publish",
            {"TopicArn": topic, "Subject": subject[:100], **asl.field("Message", message)},
            ResultPath=None,
            Retry=asl.again(context.patience, 2),
            Catch=asl.catch(following, "$.not_notified"),
            Next=following,
        )
    return states
