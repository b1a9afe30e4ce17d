"""The machine of a run: compile the variants that the cache lacks, gather, publish, notify.

Its input is what `submit` writes: submission, bucket, project, wheels, variants. A run's name is its execution's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from endpoint_spec import jobs

from . import asl
from .asl import State, States
from .job import GATHER, VARIANT, JobContext, find, job_name_prefix, state_names

# Of the 25,000 events that an execution's history may have, those that looking may take; a look makes nine: two of the
# Wait, five of the Task, two of the Choice. The rest is for starting variants, of which each takes some fifty.
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
EVENTS_FOR_LOOKS, EVENTS_PER_LOOK = 15_000, 9
SHORTEST_POLL = 30
# CopyObject takes no more at once: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
LARGEST_COPY = 5 * 1024**3


def poll_seconds(time_limit: int, max_parallel: int) -> int:
    """Seconds between two looks at a job: 30, or more where a long and wide run would overflow its history."""
    return max(SHORTEST_POLL, math.ceil(max_parallel * time_limit * EVENTS_PER_LOOK / EVENTS_FOR_LOOKS))


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """How a run goes where it compiles.

    job: makes the states of one kind of job (a variant's, or the gathering), entered at "First try", from the kind and
    the state that they lead to. data: more that every job is given.
    """

    job: Callable[[str, str], States]
    data: dict[str, Any] = field(default_factory=dict)


MADE, READ_RESULT = "Made: variant", "Read result"


def run_machine(
    context: JobContext, workflow: Workflow, *, time_limit: int, max_parallel: int, topics: Sequence[str], cleanup: str
) -> dict[str, Any]:
    """The whole definition. topics: ARNs that are notified. cleanup: ARN of the machine that ends what is left."""
    message = asl.filled(f"Run {{}} compiled endpoint {context.name}.", "$.run")
    failed = asl.filled(
        f"Run {{}} of endpoint {context.name} failed. {{}}: {{}}", "$.run", "$.failure.Error", "$.failure.Cause"
    )
    return {
        "Comment": f"Compiles endpoint {context.name}: its variants, then the artifact of all of them",
        "TimeoutSeconds": time_limit,
        "StartAt": "Prepare",
        "States": {
            "Prepare": _prepare(context, workflow),
            "Right bucket": asl.choice([(asl.text_is("$.bucket", context.bucket), "Work")], "Wrong bucket"),
            "Wrong bucket": asl.fail(
                "CompileRunRefused",
                asl.filled(f"the input names bucket {{}}, but this stack compiles in {context.bucket}", "$.bucket"),
            ),
            # One branch, so that one Catch is behind everything that a run does.
            "Work": {
                "Type": "Parallel",
                "Branches": [_work(context, workflow, max_parallel)],
                "ResultSelector": {"output.$": "$[0]"},
                "ResultPath": "$.done",
                "Catch": asl.catch("Stop the rest", "$.failure"),
                "Next": "Notify of success 0",
            },
            **notify("Notify of success", context, topics, f"Compiled {context.name}", message, "Compiled"),
            "Compiled": {"Type": "Succeed", "OutputPath": "$.done.output"},
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


def _job_data(workflow: Workflow) -> dict[str, str]:
    keys = ("run", "stem", "project", "wheels", "waits", *workflow.data)
    return {f"{key}.$": f"$.{key}" for key in keys}


def _work(context: JobContext, workflow: Workflow, max_parallel: int) -> dict[str, Any]:
    variants = {
        "Type": "Map",
        "ItemsPath": "$.variants",
        "MaxConcurrency": max_parallel,
        "ItemSelector": {
            **_job_data(workflow),
            "index.$": "$$.Map.Item.Value.index",
            "key.$": "$$.Map.Item.Value.key",
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": "Look up",
            "States": _variant(context, workflow),
        },
        "ResultPath": "$.variants",
        "Next": "Prepare gathering",
    }
    finish = {
        "run.$": "$.run",
        "result.$": asl.filled(jobs.output_prefix(context.name, "{}"), "$.run"),
        "variants.$": "$.variants",
        "artifact.$": "$.artifact",
    }
    return {
        "StartAt": "Variants",
        "States": {
            "Variants": variants,
            **_gather_and_publish(context, workflow),
            "Finish": asl.pass_state(finish, End=True),
        },
    }


def _variant(context: JobContext, workflow: Workflow) -> States:
    at = state_names(VARIANT)
    # What a variant's job leaves in the cache: one object, so that it is never half there.
    made = asl.filled(jobs.variant_key(context.name, "{}"), "$.key")
    outcome = {"index.$": "$.index", "key.$": "$.key"}
    return {
        "Look up": find(context, made, "In the cache"),
        "In the cache": asl.choice([(asl.above_zero("$.found.count"), "From the cache")], at("First try")),
        "From the cache": asl.pass_state({**outcome, "cached": True}, End=True),
        **workflow.job(VARIANT, MADE),
        MADE: find(context, made, at("Is there")),
        at("Is there"): asl.choice([(asl.above_zero("$.found.count"), at("Compiled"))], at("Missing")),
        at("Missing"): asl.fail(
            "CompiledVariantMissing", asl.filled("{} ended well, but its variant is not in the cache", "$.job.name")
        ),
        at("Compiled"): asl.pass_state({**outcome, "cached": False}, End=True),
    }


def _gather_and_publish(context: JobContext, workflow: Workflow) -> States:
    output = jobs.output_prefix(context.name, "{}")
    return {
        "Prepare gathering": asl.pass_state(
            {**_job_data(workflow), "index": GATHER, "variants.$": "$.variants"}, Next=state_names(GATHER)("First try")
        ),
        **workflow.job(GATHER, READ_RESULT),
        READ_RESULT: context.retried(
            "s3:getObject",
            {"Bucket": context.bucket, "Key.$": asl.filled(f"{output}{jobs.RESULT}", "$.run")},
            ResultSelector={"artifact.$": "States.StringToJson($.Body)"},
            ResultPath="$.read",
            Next="Name artifact",
        ),
        # The key is made here, not taken from the result: what ran in the job does not decide where it is published.
        "Name artifact": asl.pass_state(
            {
                "sha256.$": "$.read.artifact.artifact.sha256",
                "bytes.$": "$.read.artifact.artifact.bytes",
                "key.$": asl.filled(f"models/{context.name}/{{}}/{jobs.ARTIFACT}", "$.read.artifact.artifact.sha256"),
            },
            ResultPath="$.artifact",
            Next="Find published",
        ),
        "Find published": find(context, "$.artifact.key", "Published already"),
        "Published already": asl.choice(
            [
                (asl.above_zero("$.found.count"), "Finish"),
                ({"Variable": "$.artifact.bytes", "NumericGreaterThan": LARGEST_COPY}, "Too large"),
            ],
            "Publish",
        ),
        "Too large": asl.fail(
            "ArtifactTooLarge",
            asl.filled(
                f"the artifact has {{}} bytes, and S3 copies {LARGEST_COPY} at once: publish it with `inferentia "
                f"publish {context.name}`",
                "$.artifact.bytes",
            ),
        ),
        # A copy is there whole or not at all, so nobody ever sees half an artifact.
        "Publish": context.retried(
            "s3:copyObject",
            {
                "Bucket": context.bucket,
                "Key.$": "$.artifact.key",
                "CopySource.$": asl.filled(f"{context.bucket}/{output}{jobs.ARTIFACT}", "$.run"),
            },
            ResultPath=None,
            Next="Finish",
        ),
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
