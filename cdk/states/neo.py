"""Compiling with SageMaker Neo, the thin branch: AWS's own compiler service for a traced model of one shape.

Neo is given a TorchScript file and its input's shape. It takes no options of ours and no pipeline, gives no compiler
log, and its artifact is made for its own runtime. So nothing is gathered, published or locked: a run leaves what Neo
made in the cache. https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateCompilationJob.html
"""

from __future__ import annotations

from cdk.states import asl
from cdk.states.asl import States
from cdk.states.job import Place, job_states, naming, reason
from endpoint_spec import jobs

# In the bundle, for each variant: the traced model, and its inputs as Neo's DataInputConfig.
MODEL, SHAPES = "neo/{}/model.tar.gz", "neo/{}/inputs.json"


def made_key(place: Place) -> str:
    """What Neo leaves for a variant: it names the file after the device."""
    return f"States.Format('{jobs.cache_prefix(place.name)}{{}}/model-ml_inf1.tar.gz', $.key)"


def neo_states(place: Place, role: str, kind: str, done: str) -> States:
    """The states of one compilation job; see job_states. Entered at "Read shapes".

    role: ARN of the role that Neo assumes.
    """
    at = naming(kind)
    request = {
        "CompilationJobName.$": "$.job.name",
        "RoleArn": role,
        "InputConfig": {
            "S3Uri.$": f"States.Format('s3://{place.bucket}/{{}}{MODEL}', $.project, $.index)",
            "DataInputConfig.$": "$.shapes.text",
            "Framework": "PYTORCH",
        },
        "OutputConfig": {
            "S3OutputLocation.$": f"States.Format('s3://{place.bucket}/{jobs.cache_prefix(place.name)}{{}}/', $.key)",
            "TargetDevice": "ml_inf1",
            "KmsKeyId": place.kms_key,
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": place.limit},
        "Tags": place.tag_list({"inferentia:run": "$.run", "inferentia:task": "$.index"}),
    }
    start = asl.task(place.call("sagemaker", "createCompilationJob"), request, ResultPath=None)
    return {
        at("Read shapes"): asl.task(
            place.call("s3", "getObject"),
            {"Bucket": place.bucket, "Key.$": f"States.Format('{{}}{SHAPES}', $.project, $.index)"},
            ResultSelector={"text.$": "$.Body"},
            ResultPath="$.shapes",
            Retry=place.retry,
            Next=at("First try"),
        ),
        **job_states(kind, start=start, looks=_looks(place, kind), poll=place.poll, done=done),
    }


def _looks(place: Place, kind: str) -> States:
    at = naming(kind)
    return {
        at("Look"): asl.task(
            place.call("sagemaker", "describeCompilationJob"),
            {"CompilationJobName.$": "$.job.name"},
            ResultPath="$.seen",
            Retry=place.retry,
            Next=at("Over"),
        ),
        at("Over"): asl.choice(
            [
                (asl.text_is("$.seen.CompilationJobStatus", "STARTING", "INPROGRESS", "STOPPING"), at("Wait")),
                (asl.text_is("$.seen.CompilationJobStatus", "COMPLETED"), at("Arrived")),
                (asl.text_is("$.seen.CompilationJobStatus", "STOPPED"), at("Stopped")),
                (asl.there("$.seen.FailureReason"), at("Not run")),
            ],
            at("Without reason"),
        ),
        at("Stopped"): reason(f"was stopped, by somebody or at its limit of {place.limit} seconds", at("Failed")),
        at("Not run"): reason("$.seen.FailureReason", at("Judge")),
        at("Without reason"): reason("failed, and Neo gives no reason", at("Failed")),
    }
