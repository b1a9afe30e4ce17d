"""What both places of compiling have in common: a job is started, looked at until it is over, and judged.

The data of one job in the machine: index, key, run, stem, project, wheels, waits; and what these states add:
try.number (from 0), job (its name and the pause behind it), seen (what AWS answered last), reason (error and text).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import asl
from .asl import State, States

FIRST, ARRIVED = "First try", "Arrived"  # where a job's states begin, and the state behind a job that succeeded
# Seconds before another start, one for each try. A quota that other jobs of the run hold is free again only when one of
# them is done, so there are many tries; the run's time limit ends them too.
WAITS = (60, 120, 240, *[300] * 17)
# What is worth another start. Step Functions names errors after the SDK's classes, and what has no class of its own
# (all of EC2's, SageMaker's throttling) by the service: there only the message shows it.
SHORTAGES = (
    "*ResourceLimitExceeded*",
    "*account-level service limit*",
    "*Throttling*",
    "*Rate exceeded*",
    "*Request limit exceeded*",
    "*RequestLimitExceeded*",
    "*CapacityError*",
    "*InsufficientInstanceCapacity*",
    "*do not have sufficient*capacity*",
    "*no Spot capacity available*",
    "*Max spot instance count exceeded*",
    "*vCPU limit*",
    "*not supported in your requested Availability Zone*",
    "*InternalServerError*",
    "*Server.InternalError*",
    "*Server.SpotInstance*",
    "*ServiceUnavailable*",
    "*Status Code: 50*",
)
# A quota of zero does not pass by waiting.
HOPELESS = "*account-level service limit*is 0 Instances*"
JOB_FAILED = "CompileJobFailed"


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """What the states of every job are written with. Seconds are whole seconds.

    partition: of ARNs. bucket: the artifact bucket's name. name: the endpoint's. kms_key: ARN of the bucket's key.
    poll: between two looks at a job. limit: what one job may take at most. patience: before a call that changes nothing
    is made again. waits: before each further start of a job. tags: on everything that a run makes.
    """

    partition: str
    bucket: str
    name: str
    kms_key: str
    poll: int
    limit: int
    patience: int = 5
    waits: Sequence[int] = WAITS
    tags: Mapping[str, str]

    @property
    def retry(self) -> list[dict[str, Any]]:
        """For calls that change nothing: six more times, with the default patience within about five minutes."""
        return asl.again(self.patience, 6)

    def call(self, action: str, parameters: Mapping[str, Any], **fields: Any) -> State:
        """A Task that calls an AWS API. action: SERVICE:ACTION, without .sync; fields as asl.task takes them.

        A .sync integration would need permissions on rules of EventBridge that every state machine of the account
        shares. https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
        """
        return asl.task(f"arn:{self.partition}:states:::aws-sdk:{action}", parameters, **fields)

    def retried(self, action: str, parameters: Mapping[str, Any], **fields: Any) -> State:
        """A call that changes nothing, or nothing more when it is made again."""
        return self.call(action, parameters, Retry=self.retry, **fields)

    def tag_list(self, more: Mapping[str, str]) -> list[dict[str, Any]]:
        """Tags as AWS's APIs take them: the fixed ones and `more`, whose values may be paths or intrinsic functions."""
        fixed = [{"Key": key, "Value": value} for key, value in sorted(self.tags.items())]
        return [*fixed, *({"Key": key, **asl.field("Value", value)} for key, value in more.items())]


def short_name(name: str) -> str:
    """What the names of an endpoint's jobs begin with; lower case, because SageMaker's ARNs are."""
    return name.lower()[:20].rstrip("-")


def job_name_prefix(name: str, run: str, submission: str) -> str:
    """An intrinsic function for what the names of a run's jobs have in common. run, submission: paths.

    Job names are unique in account and region for good, but a stack that was made anew counts its runs from 1 again:
    hence the digest of the run and its random submission. 20 + 1 + 32 characters leave 10 of SageMaker's 63.
    """
    digest = f"States.Hash({asl.filled('{}/{}', run, submission)}, 'MD5')"
    return asl.filled(f"{short_name(name)}-{{}}", digest)


def job_name_pattern(name: str) -> str:
    """The names of an endpoint's jobs as IAM writes patterns: the digest's 32 characters keep other endpoints out."""
    return f"{short_name(name)}-{'?' * 32}-*"


def job_states(*, start: State, looks: States, poll: int) -> States:
    """One job from FIRST to ARRIVED, which is not among them, or to a Fail state.

    start: a Task without Next and Catch that makes the job `$.job.name`. looks: from "Look", which asks how the job is,
    to "Wait" (still going), ARRIVED (it says that it succeeded), "Judge" or "Job failed", the last two with `$.reason`
    set.
    """
    reason = {"error.$": "$.error.Error", "text.$": "$.error.Cause"}
    return {
        FIRST: asl.pass_state({"number": 0}, ResultPath="$.try", Next="Name job"),
        "Name job": asl.pass_state(
            {
                "name.$": asl.filled("{}-{}-{}", "$.stem", "$.index", "$.try.number"),
                "pause.$": "States.ArrayGetItem($.waits, $.try.number)",
            },
            ResultPath="$.job",
            Next="Start",
        ),
        "Start": {**start, "Next": "Wait", "Catch": asl.catch("Refused", "$.error")},
        "Refused": asl.pass_state(reason, ResultPath="$.reason", Next="Judge"),
        "Judge": asl.choice(
            [
                # The name is this try's alone: the answer to a first call was lost, and the job is there.
                (asl.text_like("$.reason.error", "*ResourceInUse*"), "Wait"),
                (asl.text_like("$.reason.text", HOPELESS), "Job failed"),
                (asl.both(asl.below("$.try.number", len(WAITS) - 1), _shortage()), "Back off"),
            ],
            "Job failed",
        ),
        "Back off": asl.wait_for("$.job.pause", "Next try"),
        "Next try": asl.pass_state(
            {"number.$": "States.MathAdd($.try.number, 1)"}, ResultPath="$.try", Next="Name job"
        ),
        "Wait": asl.wait(poll, "Look"),
        **looks,
        "Job failed": asl.fail(JOB_FAILED, asl.filled("{}: {}", "$.job.name", "$.reason.text")),
    }


def _shortage() -> dict[str, Any]:
    return asl.any_of(asl.text_like("$.reason.error", *SHORTAGES), asl.text_like("$.reason.text", *SHORTAGES))


def reason(text: str, then: str) -> State:
    """A Pass that notes why a job is not what it should be. text: words, or a path or an intrinsic function."""
    return asl.pass_state({"error": JOB_FAILED, **asl.field("text", text)}, ResultPath="$.reason", Next=then)


def find(context: JobContext, key: str, then: str) -> State:
    """A Task that counts, at `$.found.count`, the objects whose keys begin with `key`, an intrinsic function."""
    return context.retried(
        "s3:listObjectsV2",
        {"Bucket": context.bucket, "Prefix.$": key, "MaxKeys": 1},
        ResultSelector={"count.$": "$.KeyCount"},
        ResultPath="$.found",
        Next=then,
    )
