"""Compiling in a SageMaker Processing job: the Neuron image on a CPU machine, without a network.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from endpoint_spec import jobs

from . import asl
from .asl import States
from .job import ARRIVED, JobContext, job_states, reason


@dataclass(frozen=True, kw_only=True)
class ProcessingMachine:
    """Where and as whom the container runs. volume: in GB. role: an ARN."""

    image: str
    instance_type: str
    volume: int
    role: str


def processing_states(context: JobContext, machine: ProcessingMachine) -> States:
    """The states of a Processing job; see job_states."""
    start = context.call("sagemaker:createProcessingJob", _request(context, machine), ResultPath=None)
    return job_states(start=start, looks=_looks(context), poll=context.poll)


def _request(context: JobContext, machine: ProcessingMachine) -> dict[str, Any]:
    return {
        "ProcessingJobName.$": "$.job.name",
        "RoleArn": machine.role,
        "AppSpecification": {
            # AWS made the Inf1 image for inference; its entrypoint is replaced here. That neuron-cc is in it was not
            # verified: where it is not, it has to come with the wheels.
            "ImageUri": machine.image,
            "ContainerEntrypoint": ["python3", "-m", jobs.MODULE],
            "ContainerArguments.$": f"States.Array($.index, '{jobs.INPUTS}', '{jobs.OUTPUTS}')",
        },
        "Environment": {
            "INFERENTIA_RUN.$": "$.run",
            "INFERENTIA_MESSAGE_FILE": jobs.MESSAGE_FILE,
            "PYTHONPATH": f"{jobs.INPUTS}/project/{jobs.CODE}",
        },
        # A job has a graph, never the user's code; nor does it reach AWS or the internet, or have credentials.
        "NetworkConfig": {"EnableNetworkIsolation": True},
        "ProcessingInputs": _inputs(context),
        "ProcessingOutputConfig": {"KmsKeyId": context.kms_key, "Outputs": _outputs(context)},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": machine.instance_type,
                # Without VolumeKmsKeyId: that SageMaker's grant on a customer key says it is for an AWS resource, which
                # a role must not leave out, is not documented; the disk holds nothing that the bucket has not.
                "VolumeSizeInGB": machine.volume,
            }
        },
        # Counts also when nobody can stop the job any more: this bounds the bill.
        "StoppingCondition": {"MaxRuntimeInSeconds": context.limit},
        "Tags": context.tag_list({"inferentia:run": "$.run", "inferentia:index": "$.index"}),
    }


def _inputs(context: JobContext) -> list[dict[str, Any]]:
    bucket = f"s3://{context.bucket}"
    return [_input(name, asl.filled(f"{bucket}/{{}}", f"$.{name}")) for name in ("project", "wheels")]


def _input(name: str, uri: str) -> dict[str, Any]:
    s3 = {"S3Uri.$": uri, "LocalPath": f"{jobs.INPUTS}/{name}", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": s3}


def _outputs(context: JobContext) -> list[dict[str, Any]]:
    bucket = f"s3://{context.bucket}"
    record = asl.filled(f"{bucket}/{jobs.run_prefix(context.name, '{}')}record/{{}}/", "$.run", "$.index")
    variant = asl.filled(f"{bucket}/{jobs.cache_prefix(context.name)}{{}}/", "$.key")
    # Continuous, so that the compiler's log is there also of a job that was stopped.
    return [_output("variant", variant, "EndOfJob"), _output("record", record, "Continuous")]


def _output(name: str, uri: str, mode: str) -> dict[str, Any]:
    s3 = {"S3Uri.$": uri, "LocalPath": f"{jobs.OUTPUTS}/{name}", "S3UploadMode": mode}
    return {"OutputName": name, "S3Output": s3}


def _looks(context: JobContext) -> States:
    return {
        "Look": context.retried(
            "sagemaker:describeProcessingJob",
            {"ProcessingJobName.$": "$.job.name"},
            ResultPath="$.seen",
            Next="Over",
        ),
        "Over": asl.choice(
            [
                (asl.text_is("$.seen.ProcessingJobStatus", "InProgress", "Stopping"), "Wait"),
                (asl.text_is("$.seen.ProcessingJobStatus", "Completed"), ARRIVED),
                (asl.text_is("$.seen.ProcessingJobStatus", "Stopped"), "Stopped"),
                # The container's own last line: it ran, and another start would end the same way.
                (asl.there("$.seen.ExitMessage"), "Own message"),
                (asl.text_like("$.seen.FailureReason", "AlgorithmError*"), "Algorithm error"),
                (asl.there("$.seen.FailureReason"), "Not run"),
            ],
            "Without reason",
        ),
        "Stopped": reason(f"was stopped, by somebody or at its limit of {context.limit} seconds", "Job failed"),
        "Own message": reason("$.seen.ExitMessage", "Job failed"),
        "Algorithm error": reason("$.seen.FailureReason", "Job failed"),
        "Not run": reason("$.seen.FailureReason", "Judge"),
        "Without reason": reason(asl.filled("{}, without a reason", "$.seen.ProcessingJobStatus"), "Job failed"),
    }


def stop_states(context: JobContext, then: str) -> States:
    """Stop every Processing job of the run `$.stem` that still runs. Entered at "List jobs"."""
    stop = context.call(
        "sagemaker:stopProcessingJob",
        {"ProcessingJobName.$": "$.name"},
        ResultPath=None,
        Retry=asl.again(context.patience, 3),
        Catch=asl.catch("Over already", "$.error"),
        End=True,
    )
    each = {"Stop job": stop, "Over already": {"Type": "Pass", "End": True}}
    return {
        "List jobs": context.retried(
            "sagemaker:listProcessingJobs",
            {"NameContains.$": "$.stem", "StatusEquals": "InProgress", "MaxResults": 100},
            ResultPath="$.left",
            Next="Stop jobs",
        ),
        "Stop jobs": {
            "Type": "Map",
            "ItemsPath": "$.left.ProcessingJobSummaries",
            "ItemSelector": {"name.$": "$$.Map.Item.Value.ProcessingJobName"},
            "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Stop job", "States": each},
            "ResultPath": None,
            "Next": then,
        },
    }
