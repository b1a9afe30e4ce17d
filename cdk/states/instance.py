"""Compiling on an EC2 instance of a launch template: it terminates itself, and says last how it went.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from endpoint_spec import jobs

from . import asl
from .asl import States
from .job import ARRIVED, WAITS, JobContext, find, job_states, reason

ENDPOINT_TAG, RUN_TAG = "inferentia:endpoint", "inferentia:run"
ENDED_FROM_OUTSIDE = 143  # the script's own exit code for SIGTERM
_COSTING = ["pending", "running", "stopping", "stopped"]


@dataclass(frozen=True, kw_only=True)
class InstanceMachine:
    """The launch template with its version, and a subnet in each availability zone that may be tried."""

    template: str
    version: str
    subnets: Sequence[str]

    def subnet_of_try(self) -> list[str]:
        """A subnet for each try, in turn: what one zone has not, another may have."""
        return [self.subnets[number % len(self.subnets)] for number in range(len(WAITS))]


def instance_states(context: JobContext, machine: InstanceMachine) -> States:
    """The states of an instance; see job_states. `$.subnets` holds the subnet of each try."""
    start = context.call(
        "ec2:runInstances",
        _request(context, machine),
        # A path that continues after [0] is one value to AWS, but a list to the interpreter that the embedded AWS uses.
        ResultSelector={"made.$": "$.Instances[0]"},
        ResultPath="$.started",
    )
    return job_states(start=start, looks=_looks(context), poll=context.poll)


def _request(context: JobContext, machine: InstanceMachine) -> dict[str, Any]:
    tags_of_job = {
        # As the template: that EC2 adds the two lists is not documented, and the cleanup finds instances by it.
        ENDPOINT_TAG: context.name,
        "Name": "$.job.name",
        "inferentia:bucket": context.bucket,
        "inferentia:project": "$.project",
        "inferentia:wheels": "$.wheels",
        "inferentia:index": "$.index",
        "inferentia:key": "$.key",
        RUN_TAG: "$.run",
    }
    tags = context.tag_list(tags_of_job)
    return {
        # The same token starts the same instance: an answer that was lost costs nothing. At most 64 characters.
        "ClientToken.$": "$.job.name",
        "LaunchTemplate": {"LaunchTemplateId": machine.template, "Version": machine.version},
        "SubnetId.$": "States.ArrayGetItem($.subnets, $.try.number)",
        "MinCount": 1,
        "MaxCount": 1,
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }


def _looks(context: JobContext) -> States:
    status = asl.filled(f"{jobs.run_prefix(context.name, '{}')}record/{{}}/status.json", "$.run", "$.index")
    return {
        "Look": context.retried(
            "ec2:describeInstances",
            {"InstanceIds.$": "States.Array($.started.made.InstanceId)"},
            ResultSelector={"instance.$": "$.Reservations[0].Instances[0]"},
            ResultPath="$.seen",
            # an instance is not found for some seconds after it was started
            Next="Over",
        ),
        "Over": asl.choice(
            [
                (
                    asl.text_is("$.seen.instance.State.Name", "shutting-down", "terminated", "stopped"),
                    "Ask for status",
                )
            ],
            "Wait",
        ),
        "Ask for status": find(context, status, "Has status"),
        "Has status": asl.choice([(asl.above_zero("$.found.count"), "Read status")], "No status"),
        "Read status": context.retried(
            "s3:getObject",
            {"Bucket": context.bucket, "Key.$": status},
            ResultSelector={"status.$": "States.StringToJson($.Body)"},
            ResultPath="$.report",
            Next="Judge status",
        ),
        "Judge status": asl.choice(
            [
                ({"Variable": "$.report.status.exit_code", "NumericEquals": 0}, ARRIVED),
                (_taken_away(), "Ended by EC2"),
            ],
            "Own message",
        ),
        "Own message": reason("$.report.status.message", "Job failed"),
        # Interrupted spot capacity, or at its time limit: EC2 says which.
        "No status": asl.choice([(asl.there("$.seen.instance.StateReason.Message"), "Ended by EC2")], "Without reason"),
        "Ended by EC2": reason(
            asl.filled(
                "ended without a status: {} {}",
                "$.seen.instance.StateReason.Code",
                "$.seen.instance.StateReason.Message",
            ),
            "Judge",
        ),
        "Without reason": reason("ended without a status, and EC2 gives no reason", "Job failed"),
    }


def _taken_away() -> dict[str, Any]:
    """A test: spot capacity was taken away. It leaves the script time to say that it was ended, no verdict on the job.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
    """
    code = "$.seen.instance.StateReason.Code"
    ended = {"Variable": "$.report.status.exit_code", "NumericEquals": ENDED_FROM_OUTSIDE}
    return asl.both(ended, asl.text_like(code, "Server.SpotInstance*"))


def stop_states(context: JobContext, then: str) -> States:
    """Terminate every instance of the run `$.run`. Entered at "List jobs"."""
    filters = [
        {"Name": f"tag:{ENDPOINT_TAG}", "Values": [context.name]},
        {"Name": f"tag:{RUN_TAG}", "Values.$": "States.Array($.run)"},
        {"Name": "instance-state-name", "Values": _COSTING},
    ]
    return {
        "List jobs": context.retried(
            "ec2:describeInstances", {"Filters": filters}, ResultPath="$.left", Next="Any left"
        ),
        "Any left": asl.choice([(asl.there("$.left.Reservations[0].Instances[0]"), "Stop jobs")], then),
        "Stop jobs": context.retried(
            "ec2:terminateInstances",
            {"InstanceIds.$": "$.left.Reservations[*].Instances[*].InstanceId"},
            ResultPath=None,
            Next=then,
        ),
    }
