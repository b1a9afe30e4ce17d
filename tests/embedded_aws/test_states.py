"""Step Functions: the life of executions, AWS SDK integrations with their errors, rules on status changes."""

from __future__ import annotations

import concurrent.futures
import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.machines import Machines, call
from tests.embedded_aws.running import Aws, wait_for
from tests.embedded_aws.work import Work, arm

PASS = {"Type": "Pass", "End": True}
WAIT = {"Type": "Wait", "Seconds": 86400, "End": True}


@pytest.fixture
def machines(aws: Aws, name: str) -> Machines:
    return Machines(aws, name)


@pytest.fixture
def work(aws: Aws, name: str) -> Work:
    return Work(aws, name)


def test_waits_are_short_and_the_machine_is_kept_as_written(machines: Machines) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 600, "Next": "Done"}, "Done": {**PASS, "Result": {"well": True}}}
    ended = machines.run(states, {"a": 1})  # which waits for a minute at most; at a speed of 100 it takes 6 s
    assert (ended["status"], ended["output"]) == ("SUCCEEDED", {"well": True})
    assert json.loads(ended["input"]) == {"a": 1}
    described = machines.client.describe_state_machine(stateMachineArn=ended["stateMachineArn"])
    assert json.loads(described["definition"])["States"] == states


def test_of_two_that_start_the_same_name_one_wins(machines: Machines) -> None:
    machine = machines.make({"Wait": WAIT})

    def submit(number: int) -> str:
        try:
            return machines.start(machine, {"submission": number}, name="run-1")
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(8)))
    won = [answer for answer in answers if answer != "ExecutionAlreadyExists"]
    assert len(won) == 1
    winner = json.loads(machines.client.describe_execution(executionArn=won[0])["input"])
    assert machines.start(machine, winner, name="run-1") == won[0], "the same input again is no error while it runs"
    machines.client.stop_execution(executionArn=won[0], error="Mine", cause="enough")
    ended = machines.client.describe_execution(executionArn=won[0])
    assert (ended["status"], ended["error"], ended["cause"]) == ("ABORTED", "Mine", "enough")
    assert ended["stopDate"] >= ended["startDate"]
    with pytest.raises(machines.client.exceptions.ExecutionAlreadyExists):
        machines.start(machine, winner, name="run-1")
    assert machines.start(machine) != machines.start(machine), "without a name each gets one of its own"


def test_a_time_limit_ends_the_execution(machines: Machines) -> None:
    machine = machines.make({"Wait": {**WAIT, "Seconds": 86400}}, TimeoutSeconds=120)
    ended = machines.ended(machines.start(machine))
    assert ended["status"] == "TIMED_OUT"
    assert 1 <= (ended["stopDate"] - ended["startDate"]).total_seconds() < 20, "120 s at a speed of 60"
    found = machines.client.list_executions(stateMachineArn=machine, statusFilter="TIMED_OUT")["executions"]
    assert [row["stopDate"] for row in found] == [ended["stopDate"]]
    wait_for(lambda: machines.history(ended["executionArn"])[-1] == "ExecutionTimedOut", "the last event")


def test_an_abort_cannot_be_caught(machines: Machines) -> None:
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    inner = {"StartAt": "Wait", "States": {"Wait": WAIT}}
    states = {
        "Map": {"Type": "Map", "ItemsPath": "$.variants", "ItemProcessor": inner, "Catch": catch, "End": True},
        "Caught": PASS,
    }
    execution = machines.start(machines.make(states), {"variants": [1, 2, 3]})
    wait_for(lambda: machines.history(execution).count("WaitStateEntered") == 3, "all wait")
    machines.client.stop_execution(executionArn=execution)
    assert machines.client.describe_execution(executionArn=execution)["status"] == "ABORTED"
    assert "PassStateEntered" not in machines.history(execution)


def test_when_one_iteration_fails_the_others_stop(machines: Machines, work: Work) -> None:
    put = call("s3:putObject", {"Bucket": work.bucket, "Key.$": "$.key", "Body": "late"})
    bad = {"Variable": "$.bad", "BooleanEquals": True, "Next": "Bad"}
    choice = {"Type": "Choice", "Choices": [bad], "Default": "Wait"}
    inner = {
        "Choice": choice,
        "Bad": {"Type": "Fail", "Error": "VariantFailed", "Cause": "variant 1 of 2"},
        "Wait": {"Type": "Wait", "Seconds": 200, "Next": "Put"},
        "Put": put,
    }
    processor = {"StartAt": "Choice", "States": inner}
    ended = machines.run(
        {"Map": {"Type": "Map", "ItemsPath": "$.variants", "ItemProcessor": processor, "End": True}},
        {"variants": [{"bad": False, "key": "late"}, {"bad": True, "key": "x"}]},
    )
    assert (ended["status"], ended["error"], ended["cause"]) == ("FAILED", "VariantFailed", "variant 1 of 2")
    time.sleep(2.5)
    assert work.keys("late") == []


def test_s3_through_the_sdk(machines: Machines, work: Work) -> None:
    work.put("runs/result.json", json.dumps({"artifact": {"sha256": "ab", "bytes": 5}}))
    work.put("runs/model.tar.gz", b"model")
    states = {
        "List": call(
            "s3:listObjectsV2", {"Bucket": work.bucket, "Prefix": "cache/none"}, Next="Read", ResultPath="$.listed"
        ),
        "Read": call(
            "s3:getObject",
            {"Bucket": work.bucket, "Key": "runs/result.json"},
            ResultSelector={"value.$": "States.StringToJson($.Body)"},
            ResultPath="$.result",
            Next="Copy",
        ),
        "Copy": call(
            "s3:copyObject",
            {
                "Bucket": work.bucket,
                "CopySource": f"{work.bucket}/runs/model.tar.gz",
                "Key.$": "States.Format('models/{}/model.tar.gz', $.result.value.artifact.sha256)",
            },
            ResultPath="$.copied",
        ),
    }
    ended = machines.run(states)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert ended["output"]["listed"]["KeyCount"] == 0
    assert ended["output"]["copied"]["CopyObjectResult"]["LastModified"].endswith("Z")
    assert work.read("models/ab/model.tar.gz") == b"model"


def poll(name: str) -> dict[str, Any]:
    """Describe a job until it has ended."""
    running = {"Variable": "$.job.ProcessingJobStatus", "StringEquals": "InProgress", "Next": "Pause"}
    return {
        "Describe": call(
            "sagemaker:describeProcessingJob", {"ProcessingJobName": name}, ResultPath="$.job", Next="Look"
        ),
        "Look": {"Type": "Choice", "Choices": [running], "Default": "Ended"},
        "Pause": {"Type": "Wait", "Seconds": 30, "Next": "Describe"},
        "Ended": PASS,
    }


def test_a_processing_job_with_a_polling_loop(machines: Machines, work: Work) -> None:
    request = work.request("sleep 1; echo variant > $4/variant/variant.tar")
    states = {
        "Create": call("sagemaker:createProcessingJob", request, ResultPath=None, Next="Describe"),
        **poll(work.name),
    }
    ended = machines.run(states)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert ended["output"]["job"]["ProcessingJobStatus"] == "Completed"
    assert ended["output"]["job"]["ProcessingEndTime"].endswith("Z")
    assert work.keys("out/variant/") == ["out/variant/variant.tar"]


def error_of(machines: Machines, action: str, parameters: dict[str, Any]) -> tuple[str, str]:
    """Error and cause that a Catch is given."""
    caught = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    states = {"Call": call(action, parameters, Catch=caught), "Caught": PASS}
    output = machines.run(states, name=f"{machines.name}-{time.monotonic_ns()}")["output"]
    return output["Error"], output["Cause"]


def test_errors_have_the_names_of_aws(machines: Machines, work: Work) -> None:
    job = {"ProcessingJobName": "nobody"}
    for code, name in (
        ("ThrottlingException", "SageMaker.SageMakerException"),  # not in SageMaker's model
        ("ResourceLimitExceeded", "SageMaker.ResourceLimitExceededException"),
    ):
        arm(machines.aws, kind="call", action="error", operation="sagemaker:DescribeProcessingJob", error=code)
        found, cause = error_of(machines, "sagemaker:describeProcessingJob", job)
        assert found == name
        assert "(Service: SageMaker, Status Code: 400, Request ID: " in cause
    assert error_of(machines, "sagemaker:describeProcessingJob", job)[0] == "SageMaker.ResourceNotFoundException"
    missing = {"Bucket": work.bucket, "Key": "nothing"}
    assert error_of(machines, "s3:getObject", missing)[0] == "S3.NoSuchKeyException"
    assert error_of(machines, "s3:listObjectsV2", {"Bucket": "no-such-bucket"})[0] == "S3.NoSuchBucketException"
    arm(machines.aws, kind="call", action="error", operation="s3:CopyObject", error="SlowDown", where="models/")
    copy = {"Bucket": work.bucket, "Key": "models/x", "CopySource": f"{work.bucket}/y"}
    assert error_of(machines, "s3:copyObject", copy) == (
        "S3.S3Exception",
        "Please reduce your request rate. (Service: S3, Status Code: 503, Request ID: none)",
    )
    found, cause = error_of(machines, "ec2:describeInstances", {"InstanceIds": ["i-0123456789abcdef0"]})
    assert (found, "does not exist" in cause) == ("Ec2.Ec2Exception", True)
    found, cause = error_of(machines, "s3:getObject", {"Bucket": work.bucket, "Kee": "x"})
    assert found == "States.Runtime"
    assert "Kee" in cause


def test_capacity_errors_are_retried_until_it_works(machines: Machines, work: Work) -> None:
    request = work.request("true")
    retry = [{
        "ErrorEquals": ["SageMaker.ResourceLimitExceededException"],
        "IntervalSeconds": 30, "MaxAttempts": 5, "BackoffRate": 1.5,
    }]  # fmt: skip
    arm(machines.aws, kind="call", action="error", operation="sagemaker:CreateProcessingJob",
        error="ResourceLimitExceeded", where=work.name, times=3)  # fmt: skip
    states = {"Create": call("sagemaker:createProcessingJob", request, Retry=retry)}
    execution = machines.start(machines.make(states))
    ended = machines.ended(execution)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert machines.history(execution).count("TaskFailed") == 3
    assert (ended["stopDate"] - ended["startDate"]).total_seconds() >= (30 + 45 + 67) / 100
    work.ended()


def test_logs_and_notifications(machines: Machines) -> None:
    logs, sns, sqs = (machines.aws.client(service) for service in ("logs", "sns", "sqs"))
    logs.create_log_group(logGroupName=f"/{machines.name}")
    topic = sns.create_topic(Name=machines.name)["TopicArn"]
    queue = sqs.create_queue(QueueName=machines.name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    group = f"/{machines.name}"
    states = {
        "Stream": call("cloudwatchlogs:createLogStream", {"LogGroupName": group, "LogStreamName": "s"}, Next="Groups"),
        "Groups": call("cloudwatchlogs:describeLogStreams", {"LogGroupName": group}, Next="Tell", ResultPath="$.found"),
        "Tell": call("sns:publish", {"TopicArn": topic, "Message.$": "$.found.LogStreams[0].LogStreamName"}),
    }
    ended = machines.run(states)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "s"


def test_an_unknown_integration_is_refused_when_the_machine_is_made(machines: Machines) -> None:
    for action, said in (("dynamodb:putItem", "no AWS SDK integration"), ("s3:fetchObject", "no action fetchObject")):
        with pytest.raises(machines.client.exceptions.InvalidDefinition, match=said):
            machines.make({"Call": call(action, {})})


def test_a_path_that_is_none_is_refused_when_the_machine_is_made(machines: Machines) -> None:
    tags = [{"Key": "bucket", "Value.$": "a-bucket"}]
    with pytest.raises(machines.client.exceptions.InvalidDefinition, match=r"'Value.\$' must be a valid JSONPath"):
        machines.make({"Tag": call("sns:publish", {"Tags": tags})})


def test_a_name_is_not_taken_over(machines: Machines) -> None:
    first = machines.make({"A": PASS})
    assert machines.make({"A": PASS}) == first
    with pytest.raises(ClientError) as caught:
        machines.make({"B": PASS})
    assert caught.value.response["Error"]["Code"] == "StateMachineAlreadyExists"


def test_paths_give_what_they_give_on_aws(machines: Machines) -> None:
    given = {"a": [{"b": [{"id": 1}]}], "none": []}
    paths = {"one.$": "$.a[0].b[0].id", "part.$": "$.a[0]", "all.$": "$.a[*].b[*].id", "nothing.$": "$.none[*].id"}
    ended = machines.run({"Pass": {**PASS, "Parameters": paths}}, given)
    assert ended["output"] == {"one": 1, "part": given["a"][0], "all": [1], "nothing": []}
    ended = machines.run({"Pass": {**PASS, "Parameters": {"x.$": "$.a[3].b"}}}, given, name=f"{machines.name}-2")
    assert ended["status"] == "FAILED"


def test_the_history_comes_in_pages_and_backwards(machines: Machines) -> None:
    states = {f"S{n}": {"Type": "Pass", "Next": f"S{n + 1}"} for n in range(4)} | {"S4": PASS}
    execution = machines.run(states)["executionArn"]
    wait_for(lambda: "ExecutionSucceeded" in machines.history(execution), "the last event")
    newest = machines.client.get_execution_history(executionArn=execution, reverseOrder=True, maxResults=1)
    assert [event["type"] for event in newest["events"]] == ["ExecutionSucceeded"]
    pages = machines.client.get_paginator("get_execution_history").paginate(
        executionArn=execution, PaginationConfig={"PageSize": 5}
    )
    assert [event["id"] for page in pages for event in page["events"]] == list(range(1, 13))
