"""Compiling in a SageMaker Processing job: the Neuron image on a CPU machine, without a network.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateProcessingJob.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from endpoint_spec import jobs

from . import asl
from .asl import States
from .job import GATHER, JobContext, job_states, reason, state_names


@dataclass(frozen=True, kw_only=True)
class ProcessingMachine:
    """Where and as whom the container runs. volume: in GB. volume_key, role: ARNs."""

    image: str
    instance_type: str
    volume: int
    volume_key: str
    role: str


def processing_states(context: JobContext, machine: ProcessingMachine, kind: str, done: str) -> States:
    """The states of one kind of Processing job; see job_states."""
    start = context.call("sagemaker:createProcessingJob", _request(context, machine, kind), ResultPath=None)
    return job_states(kind, start=start, looks=_looks(context, kind), poll=context.poll, done=done)


def _request(context: JobContext, machine: ProcessingMachine, kind: str) -> dict[str, Any]:
    job = "States.Array('gather', '{}', '{}')" if kind == GATHER else "States.Array('variant', $.index, '{}', '{}')"
    return {
        "ProcessingJobName.$": "$.job.name",
        "RoleArn": machine.role,
        "AppSpecification": {
            # AWS made the Inf1 image for inference; its entrypoint is replaced here. That neuron-cc is in it was not
            # verified: where it is not, it has to come with the wheels.
            "ImageUri": machine.image,
            "ContainerEntrypoint": ["/bin/sh", f"{jobs.INPUTS}/project/{jobs.START}"],
            "ContainerArguments.$": job.format(jobs.INPUTS, jobs.OUTPUTS),
        },
        "Environment": {"INFERENTIA_RUN.$": "$.run", "INFERENTIA_MESSAGE_FILE": jobs.MESSAGE_FILE},
        # The user's model runs here as code: it reaches neither AWS nor the internet, and has no credentials.
        "NetworkConfig": {"EnableNetworkIsolation": True},
        "ProcessingInputs": _inputs(context, kind),
        "ProcessingOutputConfig": {"KmsKeyId": context.kms_key, "Outputs": _outputs(context, kind)},
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": machine.instance_type,
                "VolumeSizeInGB": machine.volume,
                "VolumeKmsKeyId": machine.volume_key,
            }
        },
        # Counts also when nobody can stop the job any more: this bounds the bill.
        "StoppingCondition": {"MaxRuntimeInSeconds": context.limit},
        "Tags": context.tag_list({"inferentia:run": "$.run", "inferentia:task": "$.index"}),
    }


def _inputs(context: JobContext, kind: str) -> list[dict[str, Any]]:
    bucket = f"s3://{context.bucket}"
    rows = [
        _input("project", asl.filled(f"{bucket}/{{}}", "$.project"), "S3Prefix"),
        _input("wheels", asl.filled(f"{bucket}/{{}}", "$.wheels"), "S3Prefix"),
    ]
    if kind == GATHER:
        manifest = f"{bucket}/{jobs.variants_manifest_key(context.name, '{}')}"
        rows.append(_input("variants", asl.filled(manifest, "$.run"), "ManifestFile"))
    return rows


def _input(name: str, uri: str, kind: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri.$": uri,
            "LocalPath": f"{jobs.INPUTS}/{name}",
            "S3DataType": kind,
            "S3InputMode": "File",
        },
    }


def _outputs(context: JobContext, kind: str) -> list[dict[str, Any]]:
    bucket = f"s3://{context.bucket}"
    record = asl.filled(f"{bucket}/{jobs.run_prefix(context.name, '{}')}record/{{}}/", "$.run", "$.index")
    variant = asl.filled(f"{bucket}/{jobs.cache_prefix(context.name)}{{}}/", "$.key")
    result = asl.filled(f"{bucket}/{jobs.output_prefix(context.name, '{}')}", "$.run")
    made = _output("result", result, "EndOfJob") if kind == GATHER else _output("variant", variant, "EndOfJob")
    # Continuous, so that the compiler's log is there also of a job that was stopped.
    return [made, _output("record", record, "Continuous")]


def _output(name: str, uri: str, mode: str) -> dict[str, Any]:
    s3 = {"S3Uri.$": uri, "LocalPath": f"{jobs.OUTPUTS}/{name}", "S3UploadMode": mode}
    return {"OutputName": name, "S3Output": s3}


def _looks(context: JobContext, kind: str) -> States:
    at = state_names(kind)
    return {
        at("Look"): context.retried(
            "sagemaker:describeProcessingJob",
            {"ProcessingJobName.$": "$.job.name"},
            ResultPath="$.seen",
            Next=at("Over"),
        ),
        at("Over"): asl.choice(
            [
                (asl.text_is("$.seen.ProcessingJobStatus", "InProgress", "Stopping"), at("Wait")),
                (asl.text_is("$.seen.ProcessingJobStatus", "Completed"), at("Arrived")),
                (asl.text_is("$.seen.ProcessingJobStatus", "Stopped"), at("Stopped")),
                # The container's own last line: it ran, and another start would end the same way.
                (asl.there("$.seen.ExitMessage"), at("Own message")),
                (asl.text_like("$.seen.FailureReason", "AlgorithmError*"), at("Algorithm error")),
                (asl.there("$.seen.FailureReason"), at("Not run")),
            ],
            at("Without reason"),
        ),
        at("Stopped"): reason(f"was stopped, by somebody or at its limit of {context.limit} seconds", at("Failed")),
        at("Own message"): reason("$.seen.ExitMessage", at("Failed")),
        at("Algorithm error"): reason("$.seen.FailureReason", at("Failed")),
        at("Not run"): reason("$.seen.FailureReason", at("Judge")),
        at("Without reason"): reason(asl.filled("{}, without a reason", "$.seen.ProcessingJobStatus"), at("Failed")),
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
