"""Endpoints run real worker processes from published tarballs; the artifacts here are tiny and independent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.artifacts import artifact, server, tarball
from tests.embedded_aws.helpers import Hosting, Stacks, alive
from tests.embedded_aws.running import Aws, running, wait_for


def test_an_endpoint_answers_through_its_own_worker(hosting: Hosting) -> None:
    described = hosting.up(hosting.config("one", artifact("one")))
    assert described["EndpointStatus"] == "InService"
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    seen = hosting.invoke(
        b"\x00\xffraw",
        ContentType="image/jpeg",
        Accept="image/png; size=model",
        CustomAttributes="size=model",
        InferenceId="one-of-mine",
    )
    assert (seen["mode"], seen["body"], seen["flavour"]) == ("one", "\x00\xffraw", "one")
    assert (seen["host"].rsplit(":", 1)[0], seen["origin"]) == ("127.0.0.1", None)
    assert seen["headers"] == {
        "Content-Type": "image/jpeg",
        "Accept": "image/png; size=model",
        "X-Amzn-SageMaker-Custom-Attributes": "size=model",
        "X-Amzn-SageMaker-Inference-Id": "one-of-mine",
    }
    answer = seen["answer"]
    headers = answer.pop("ResponseMetadata")["HTTPHeaders"]
    assert answer == {
        "ContentType": "application/json",
        "InvokedProductionVariant": "main",
        "CustomAttributes": "seen=yes",
    }
    assert "x-other" not in headers
    assert os.path.commonpath([seen["folder"], hosting.aws.directory]) == str(hosting.aws.directory)
    wait_for(lambda: "this worker is one" in hosting.logs(), "the worker's line is in CloudWatch Logs")
    assert "[host] runs with the native server" in hosting.logs()
    form = hosting.invoke(b"a=1&b=2", ContentType="application/x-www-form-urlencoded")
    assert form["body"] == "a=1&b=2"

    hosting.sagemaker.delete_endpoint(EndpointName=hosting.name)
    assert not alive(seen["pid"])
    assert hosting.fails(b"x")["Error"]["Code"] == "ValidationError"


def test_errors_have_the_forms_of_sagemaker(hosting: Hosting) -> None:
    unknown = hosting.fails(b"x")
    assert unknown["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert unknown["Error"] == {
        "Code": "ValidationError",
        "Message": f"Endpoint {hosting.name} of account 123456789012 not found.",
    }
    hosting.up(hosting.config("one", artifact("one")))
    bad = hosting.fails(b"bad")
    assert bad["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (bad["Error"]["Code"], bad["OriginalStatusCode"]) == ("ModelError", 400)
    assert bad["OriginalMessage"] == '{"error": "bad"}'
    assert f"log-group:/aws/sagemaker/Endpoints/{hosting.name}:log-stream:main/" in bad["LogStreamArn"]
    assert bad["Error"]["Message"].startswith("Received client error (400) from primary with message")
    wrong = hosting.fails(b"x", TargetVariant="other")
    assert "has no variant other; it has main" in wrong["Error"]["Message"]
    assert hosting.fails(b"x", TargetModel="m.tar.gz")["Error"]["Code"] == "ValidationError"
    assert hosting.fails(b"x", CustomAttributes="x" * 1025)["Error"]["Code"] == "ValidationError"


def test_the_other_ways_to_invoke_answer_as_sagemaker_does(hosting: Hosting) -> None:
    runtime, name = hosting.aws.client("sagemaker-runtime"), hosting.name
    later = {"EndpointName": name, "InputLocation": "s3://bucket/key"}
    for call in (
        lambda: runtime.invoke_endpoint_async(**later),
        lambda: runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"x"),
    ):
        with pytest.raises(
            ClientError, match=rf"\(ValidationError\).*Endpoint {name} of account 123456789012 not found"
        ):
            call()
    hosting.up(hosting.config("one", artifact("one")))
    with pytest.raises(ClientError, match=r"\(ValidationError\).*is not asynchronous: it has no AsyncInferenceConfig"):
        runtime.invoke_endpoint_async(**later)
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"whole", ContentType="text/plain")
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("application/json", "main")
    parts = [part["PayloadPart"]["Bytes"] for part in answer["Body"]]
    assert json.loads(b"".join(parts))["body"] == "whole"
    with pytest.raises(ClientError, match=r"\(ModelError\).*Received client error \(400\) from primary"):
        runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"bad")


def test_payload_limits(hosting: Hosting) -> None:
    from endpoint_spec.platforms import limits  # noqa: PLC0415 - the limit stands in the table

    hosting.up(hosting.config("one", artifact("one")))
    most = limits().request_bytes
    assert hosting.invoke(b"x" * most)["size"] == most
    too_large = hosting.fails(b"x" * (most + 1))
    assert too_large["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert limits().response_bytes < 26_000_000, "the worker's big answer must be above the limit"
    big = hosting.fails(b"big")
    assert (big["Error"]["Code"], big["OriginalStatusCode"]) == ("ModelError", 0)
    assert "26000000 bytes" in big["OriginalMessage"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (artifact("broken"), "operator aten::frobnicate is not supported"),
        (None, "Could not find model data"),
        (b"not a tarball", "is not a safe gzip compressed tar archive"),
        (tarball({"../outside": "x"}), "is not a safe gzip compressed tar archive"),
        (tarball({"manifest.json": "{}"}), "has no code/inference_code"),
    ],
)
def test_an_endpoint_that_cannot_start_is_failed(hosting: Hosting, content: bytes | None, words: str) -> None:
    described = hosting.up(hosting.config("bad", content))
    assert described["EndpointStatus"] == "Failed"
    assert words in described["FailureReason"]
    assert "is not InService but Failed" in hosting.fails(b"x")["Error"]["Message"]


def test_a_silent_worker_is_given_up_after_its_time(aws: Aws, name: str, tmp_path: Any) -> None:
    from embedded_aws.clients import Clients  # noqa: PLC0415
    from embedded_aws.hosting.logs import LogShipper  # noqa: PLC0415
    from embedded_aws.hosting.worker import Worker, WorkerError, worker_environment  # noqa: PLC0415

    package = tmp_path / "model" / "code" / "inference_code"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "server.py").write_text(server("silent"))
    logs = LogShipper(
        Clients(aws.url, aws.access_key, aws.secret_key), "us-east-1", f"/aws/sagemaker/Endpoints/{name}", "main/i-0"
    )
    worker = Worker(package.parents[1], worker_environment(package.parents[1], {}, "us-east-1", aws.url), logs)
    try:
        with pytest.raises(WorkerError, match=r"within 3 s\. Its last lines: this worker is silent"):
            worker.start(3)
    finally:
        worker.stop()
    assert worker.pid is not None
    assert not alive(worker.pid)


def test_a_crashed_worker_is_started_again(hosting: Hosting) -> None:
    hosting.up(hosting.config("one", artifact("one")))
    before = hosting.invoke()["pid"]
    crash = hosting.fails(b"crash")
    assert (crash["Error"]["Code"], crash["OriginalStatusCode"]) == ("ModelError", 0)

    def after() -> int | None:
        try:
            return hosting.invoke()["pid"]
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"ServiceUnavailable", "ModelError"}:
                raise
            return None

    assert wait_for(after, "the worker is back") != before
    wait_for(lambda: "ended with exit code 3; starting it again" in hosting.logs(), "the restart is in the log")


def test_an_update_exchanges_workers_and_a_failing_one_keeps_the_old(hosting: Hosting) -> None:
    one = hosting.config("one", artifact("one"))
    hosting.up(one)
    old = hosting.invoke()["pid"]
    bad = hosting.update(hosting.config("bad", artifact("broken")))
    assert (bad["EndpointStatus"], bad["EndpointConfigName"]) == ("InService", one)
    assert "aten::frobnicate" in bad["FailureReason"]
    assert hosting.invoke()["pid"] == old
    two = hosting.update(hosting.config("two", artifact("two")))
    assert two["EndpointConfigName"].endswith("-two")
    assert "FailureReason" not in two
    assert hosting.invoke()["mode"] == "two"
    assert not alive(old)


def test_an_update_lets_running_invocations_end(hosting: Hosting) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    hosting.up(hosting.config("one", artifact("one")))
    two = hosting.config("two", artifact("two"))
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(hosting.invoke, b"slow") for _ in range(3)]
        hosting.update(two)
        assert {answer.result()["mode"] for answer in slow} <= {"one", "two"}
    assert hosting.invoke()["mode"] == "two"


def test_weights_counts_and_what_an_update_retains(hosting: Hosting) -> None:
    hosting.up(hosting.config("one", artifact("one")))
    wanted = [{"VariantName": "main", "DesiredWeight": 0.25, "DesiredInstanceCount": 5}]
    hosting.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=hosting.name, DesiredWeightsAndCapacities=wanted
    )
    two = hosting.config("two", artifact("two"), InitialInstanceCount=2, InitialVariantWeight=0.75)
    described = hosting.update(
        two,
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    variant = described["ProductionVariants"][0]
    assert (variant["DesiredInstanceCount"], variant["DesiredWeight"]) == (5, 0.75)
    three = hosting.config("three", artifact("three"), InitialInstanceCount=2)
    assert hosting.update(three)["ProductionVariants"][0]["DesiredInstanceCount"] == 2
    with pytest.raises(ClientError, match="must be distinct and present"):
        hosting.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=hosting.name, DesiredWeightsAndCapacities=[{"VariantName": "other"}]
        )


def test_another_instance_type_is_refused_while_scaling_is_registered(hosting: Hosting) -> None:
    hosting.up(hosting.config("one", artifact("one")))
    two = hosting.config("two", artifact("two"), InstanceType="ml.inf2.8xlarge")
    scaling, where = (
        hosting.aws.client("application-autoscaling"),
        {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{hosting.name}/variant/main",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        },
    )
    scaling.register_scalable_target(MinCapacity=1, MaxCapacity=2, **where)
    with pytest.raises(ClientError, match=r"cannot change from ml\.inf2\.xlarge to ml\.inf2\.8xlarge"):
        hosting.sagemaker.update_endpoint(EndpointName=hosting.name, EndpointConfigName=two)
    assert hosting.settled()["EndpointStatus"] == "InService"
    assert hosting.update(hosting.config("three", artifact("three")))["EndpointConfigName"].endswith("-three")
    scaling.deregister_scalable_target(**where)
    assert hosting.update(two)["EndpointConfigName"] == two


def test_a_hosts_machine_image_is_for_its_chip(hosting: Hosting) -> None:
    """InferenceAmiVersion of API_ProductionVariant: the one with a Neuron driver is for Inferentia2 and Trainium."""
    ami = "al2-ami-sagemaker-inference-neuron-2"
    kept = hosting.sagemaker.describe_endpoint_config(
        EndpointConfigName=hosting.config("ami", b"", InferenceAmiVersion=ami)
    )
    assert kept["ProductionVariants"][0]["InferenceAmiVersion"] == ami
    for label, kind, other in (
        ("inf1", "ml.inf1.xlarge", ami),
        ("gpu", "ml.inf2.xlarge", "al2-ami-sagemaker-inference-gpu-2"),
    ):
        with pytest.raises(ClientError, match=f"InferenceAmiVersion {other} is not for {kind}"):
            hosting.config(label, b"", InferenceAmiVersion=other, InstanceType=kind)


def test_two_variants_share_the_traffic_by_weight(hosting: Hosting) -> None:
    one, two = hosting.config("one", artifact("one")), hosting.config("two", artifact("two"))
    variants = [
        {"VariantName": label, "ModelName": model, "InstanceType": "ml.inf1.xlarge", "InitialInstanceCount": 1,
         "InitialVariantWeight": weight}
        for label, model, weight in (("a", one, 1.0), ("b", two, 0.0))
    ]  # fmt: skip
    both = f"{hosting.name}-both"
    hosting.sagemaker.create_endpoint_config(EndpointConfigName=both, ProductionVariants=variants)
    hosting.up(both)
    assert {hosting.invoke()["mode"] for _ in range(10)} == {"one"}
    assert hosting.invoke(TargetVariant="b")["answer"]["InvokedProductionVariant"] == "b"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"DataCaptureConfig": {"EnableCapture": True, "InitialSamplingPercentage": 100, "DestinationS3Uri": "s3://x",
          "CaptureOptions": [{"CaptureMode": "Input"}]}}, "captures no data"),
        ({"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://x"}}}, "AsyncInferenceConfig"),
    ],
)  # fmt: skip
def test_what_cannot_be_hosted_is_refused(hosting: Hosting, more: dict[str, Any], words: str) -> None:
    model = hosting.config("one")
    variant = {"VariantName": "main", "ModelName": model, "InstanceType": "ml.inf1.xlarge", "InitialInstanceCount": 1}
    with pytest.raises(ClientError, match=words):
        hosting.sagemaker.create_endpoint_config(
            EndpointConfigName=f"{hosting.name}-x", ProductionVariants=[variant], **more
        )


@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_no_worker_outlives_the_server(tmp_path: Any, name: str, number: str) -> None:
    import signal  # noqa: PLC0415

    with running(tmp_path / "aws") as aws:
        hosting = Hosting(aws, name)
        hosting.up(hosting.config("one", artifact("one")))
        child = int(hosting.invoke(b"child")["body"])
        pids = [process.pid for process in aws.workers()]
        assert child in pids
        assert len(pids) >= 3, "keeper, worker, and the worker's own child"
        aws.end(getattr(signal, number))
        wait_for(lambda: not any(alive(pid) for pid in pids), "every process is gone", 20)


def template(name: str, key: str) -> dict[str, Any]:
    """An endpoint as an app has it: model and configuration without names, endpoint and variant with one."""
    model = {
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/any",
        "PrimaryContainer": {"Image": "image", "ModelDataUrl": f"s3://{name}/models/{key}/model.tar.gz"},
    }
    variant = {
        "VariantName": "main",
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "InstanceType": "ml.inf1.xlarge",
        "InitialInstanceCount": "1",
    }
    endpoint = {
        "EndpointName": name,
        "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
        "RetainAllVariantProperties": True,
    }
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": {"Fn::Sub": "endpoint/${Endpoint.EndpointName}/variant/main"},
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "MinCapacity": 1,
        "MaxCapacity": 4,
    }
    return {
        "Resources": {
            "Model": {"Type": "AWS::SageMaker::Model", "Properties": model},
            "Config": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": {"ProductionVariants": [variant]}},
            "Endpoint": {"Type": "AWS::SageMaker::Endpoint", "Properties": endpoint},
            "Target": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": target},
        }
    }


def test_a_stack_with_an_endpoint(hosting: Hosting, stacks: Stacks, name: str) -> None:
    publish: Callable[[str], Any] = lambda mode: hosting.s3.put_object(  # noqa: E731
        Bucket=name, Key=f"models/{mode}/model.tar.gz", Body=artifact(mode)
    )
    for mode in ("one", "two", "broken"):
        publish(mode)
    assert stacks.up(name, template(name, "one"))["StackStatus"] == "CREATE_COMPLETE"
    first = stacks.physical(name)
    pid = hosting.invoke()["pid"]

    assert stacks.up(name, template(name, "broken"))["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "aten::frobnicate" in stacks.failures(name)["Endpoint"]
    assert hosting.invoke()["pid"] == pid, "the old worker never stopped serving"
    assert stacks.physical(name) == first
    names = {item["EndpointConfigName"] for item in hosting.sagemaker.list_endpoint_configs()["EndpointConfigs"]}
    assert len([item for item in names if item.startswith("Config-")]) == 1, "the new configuration is cleaned up"

    assert stacks.up(name, template(name, "two"))["StackStatus"] == "UPDATE_COMPLETE"
    assert hosting.invoke()["mode"] == "two"
    second = stacks.physical(name)
    assert {key for key in first if first[key] != second[key]} == {"Model", "Config"}
    order = [logical for logical, status, _ in stacks.events(name) if status == "DELETE_COMPLETE"][-2:]
    assert order == ["Config", "Model"]

    assert stacks.down(name) == "DELETE_COMPLETE"
    assert hosting.sagemaker.list_endpoints(NameContains=name)["Endpoints"] == []
    assert hosting.sagemaker.list_models(NameContains="Model-")["Models"] == []


def fleet(name: str, least: int, most: int, instance_type: str = "ml.inf1.xlarge") -> dict[str, Any]:
    """The template as cdk/ makes it of scale: {min: least, max: most}."""
    made, fixed = template(name, "one"), least == most
    resources = made["Resources"]
    config = resources.pop("Config")
    config["Properties"]["ProductionVariants"][0] |= {
        "InitialInstanceCount": least if fixed else 1,
        "InstanceType": instance_type,
    }
    config_id = "FixedConfig" if fixed else "Config"
    excluded = ["DataCaptureConfig", *(["DesiredInstanceCount"] if fixed else [])]
    resources["Endpoint"]["Properties"] |= {
        "EndpointConfigName": {"Fn::GetAtt": [config_id, "EndpointConfigName"]},
        "ExcludeRetainedVariantProperties": [{"VariantPropertyType": kind} for kind in excluded],
    }
    resources["Target"]["Properties"] |= {"MinCapacity": least, "MaxCapacity": most}
    if fixed:
        del resources["Target"]
    return {"Resources": {**resources, config_id: config}}


def test_a_fleet_is_scaled_then_fixed_then_of_another_type_then_scaled_again(
    hosting: Hosting, stacks: Stacks, name: str
) -> None:
    hosting.s3.put_object(Bucket=name, Key="models/one/model.tar.gz", Body=artifact("one"))

    def up(*of: Any) -> tuple[str, int, int]:
        """Status of the stack, instances of the endpoint, scalable targets."""
        status = stacks.up(name, fleet(name, *of))["StackStatus"]
        (variant,) = hosting.settled()["ProductionVariants"]
        targets = hosting.aws.client("application-autoscaling").describe_scalable_targets(
            ServiceNamespace="sagemaker", ResourceIds=[f"endpoint/{name}/variant/main"]
        )["ScalableTargets"]
        return status, variant["CurrentInstanceCount"], len(targets)

    assert up(2, 4) == ("CREATE_COMPLETE", 2, 1), "registering brings the one of the beginning to the least"
    wanted = [{"VariantName": "main", "DesiredInstanceCount": 4}]
    hosting.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    assert up(2, 5) == ("UPDATE_COMPLETE", 4, 1), "an update keeps what scaling reached"
    assert up(2, 5, "ml.inf1.2xlarge") == ("UPDATE_ROLLBACK_COMPLETE", 4, 1), "a scaled fleet keeps its type"
    assert up(2, 2) == ("UPDATE_COMPLETE", 2, 0), "a fixed fleet has the count of the template"
    assert up(3, 3) == ("UPDATE_COMPLETE", 3, 0)
    assert up(3, 3, "ml.inf1.2xlarge") == ("UPDATE_COMPLETE", 3, 0), "and may be of another type"
    assert up(1, 4, "ml.inf1.2xlarge") == ("UPDATE_COMPLETE", 3, 1), "scaling begins where the fixed fleet was"
    assert stacks.down(name) == "DELETE_COMPLETE"


def test_a_stack_whose_first_endpoint_fails_leaves_nothing(hosting: Hosting, stacks: Stacks, name: str) -> None:
    hosting.s3.put_object(Bucket=name, Key="models/broken/model.tar.gz", Body=artifact("broken"))
    assert stacks.up(name, template(name, "broken"))["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "aten::frobnicate" in stacks.failures(name)["Endpoint"]
    assert hosting.sagemaker.list_endpoints(NameContains=name)["Endpoints"] == []
