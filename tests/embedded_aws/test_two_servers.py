"""Two servers of one process share nothing that this project keeps, nor a bucket, stack, job or access key."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.embedded_aws.helpers import Stacks
from tests.embedded_aws.machines import Machines, call
from tests.embedded_aws.running import ROOT, Aws, started, wait_for
from tests.embedded_aws.work import Work, arm

ACCOUNTS = ("123456789012", "123456789013")
LARGE = bytes(6 * 1024**2)  # moto keeps an object of more than 5 MB in a file


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Aws]]:
    """Both servers; the last tests stop the first of them and start it again."""
    folders = [tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")]
    command = [sys.executable, "-m", "tests.embedded_aws.two_servers", *map(str, folders)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        try:
            yield [started(folder, process) for folder in folders]
        finally:
            process.kill()


def toggle(aws: Aws) -> None:
    """Stop a server of the process, or start it again."""
    assert aws.process.stdin is not None
    aws.process.stdin.write(f"{aws.directory}\n".encode())
    aws.process.stdin.flush()


def keys_of(answer: dict[str, Any]) -> tuple[str, str]:
    """Id and secret of the credentials in an answer of IAM or STS."""
    found = answer.get("Credentials") or answer["AccessKey"]
    return found["AccessKeyId"], found["SecretAccessKey"]


def identity(aws: Aws, key: str, secret: str) -> str:
    """The account that a server says a key belongs to."""
    client = boto3.client(
        "sts",
        endpoint_url=aws.url,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    return str(client.get_caller_identity()["Account"])


def test_each_has_an_account_of_its_own(pair: list[Aws]) -> None:
    assert tuple(identity(aws, aws.access_key, aws.secret_key) for aws in pair) == ACCOUNTS


def test_a_bucket_of_the_same_name_holds_what_its_own_server_was_given(pair: list[Aws], name: str) -> None:
    for aws in pair:
        aws.client("s3").create_bucket(Bucket=name)
        aws.client("s3").put_object(Bucket=name, Key="k", Body=aws.url.encode())
    assert [aws.client("s3").get_object(Bucket=name, Key="k")["Body"].read() for aws in pair] == [
        aws.url.encode() for aws in pair
    ]
    first, second = (aws.client("s3") for aws in pair)
    first.put_object(Bucket=name, Key="only", Body=b"")
    assert [item["Key"] for item in second.list_objects_v2(Bucket=name)["Contents"]] == ["k"]
    first.create_bucket(Bucket=f"{name}-first")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        second.list_objects_v2(Bucket=f"{name}-first")


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has open is read from /proc")
def test_large_objects_lie_in_the_folder_of_their_server(pair: list[Aws], name: str) -> None:
    def temporary() -> list[int]:
        """How many files each server has open below its folder; they have no name any more."""
        targets = []
        for path in Path(f"/proc/{pair[0].process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a connection that was closed meanwhile
                targets.append(path.readlink())
        return [sum(aws.directory / "tmp" in target.parents for target in targets) for aws in pair]

    assert temporary() == [0, 0]
    second = pair[1].client("s3")
    second.create_bucket(Bucket=name)
    second.put_object(Bucket=name, Key="large", Body=LARGE)
    assert temporary() == [0, 1]
    second.copy_object(Bucket=name, Key="copy", CopySource=f"{name}/large")
    assert temporary() == [0, 2]
    assert second.get_object(Bucket=name, Key="copy")["Body"].read() == LARGE


def test_stacks_of_the_same_name_are_two(pair: list[Aws], name: str) -> None:
    first, second = (Stacks(aws) for aws in pair)
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": name}}
    output = {"Topic": {"Value": {"Ref": "Topic"}, "Export": {"Name": name}}}
    for stacks, account in zip((first, second), ACCOUNTS, strict=True):
        made = stacks.up(name, {"Resources": {"Topic": topic}, "Outputs": output})
        assert (made["StackStatus"], account in made["StackId"]) == ("CREATE_COMPLETE", True)
        assert made["Outputs"][0]["OutputValue"] == f"arn:aws:sns:us-east-1:{account}:{name}"
    assert first.down(name) == "DELETE_COMPLETE"
    assert first.client.list_exports()["Exports"] == []
    assert [item["Name"] for item in second.client.list_exports()["Exports"]] == [name]
    topics = [[item["TopicArn"] for item in aws.client("sns").list_topics()["Topics"]] for aws in pair]
    assert [sum(arn.endswith(name) for arn in arns) for arns in topics] == [0, 1]


def test_jobs_and_their_faults_are_those_of_their_server(pair: list[Aws], name: str) -> None:
    arm(pair[0], kind="job", action="fail", where=name)
    second, first = Work(pair[1], name), Work(pair[0], name)
    assert second.run("echo done; env | grep ENDPOINT_URL")["ProcessingJobStatus"] == "Completed"
    assert first.run("echo done")["ProcessingJobStatus"] == "Failed"
    assert str(pair[1].port) in second.log()
    assert "an injected fault" not in second.log()
    assert "an injected fault" in wait_for(first.log, "the log of the job that failed")
    assert {path.name for path in (pair[0].directory / "jobs").iterdir()} == {name}
    second.run("true", ProcessingJobName=f"{name}-2")
    with pytest.raises(ClientError, match="Could not find requested job"):
        pair[0].client("sagemaker").describe_processing_job(ProcessingJobName=f"{name}-2")


def test_a_role_of_the_other_server_cannot_be_assumed_by_a_job(pair: list[Aws], name: str) -> None:
    first, second = (Work(aws, name) for aws in pair)
    with pytest.raises(ClientError, match="Could not assume role"):
        second.start("true", RoleArn=first.role)
    assert first.role.split(":")[4:] != second.role.split(":")[4:]


def test_a_refused_call_is_refused_by_one_of_them(pair: list[Aws], name: str) -> None:
    arm(pair[1], kind="call", action="error", operation="s3:CreateBucket", error="SlowDown", times=5)
    arm(pair[1], kind="call", action="error", operation="s3:PutBucket", error="SlowDown", times=5)
    pair[0].client("s3").create_bucket(Bucket=name)
    with pytest.raises(ClientError, match="SlowDown"):
        pair[1].client("s3").create_bucket(Bucket=name)
    assert [len(aws.control("faults", method="GET")["faults"]) for aws in pair] == [0, 2]
    pair[1].control("faults", method="DELETE")


def test_each_has_its_own_clock(pair: list[Aws], name: str) -> None:
    pair[0].control("clock", {"waits": 1.0, "limits": 1.0})
    assert pair[0].control("clock", method="GET") == {"waits": 1.0, "limits": 1.0}
    assert pair[1].control("clock", method="GET") == {"waits": 100.0, "limits": 60.0}
    wait = {"Wait": {"Type": "Wait", "Seconds": 600, "End": True}}
    first, second = (Machines(aws, name) for aws in pair)
    waits = first.start(first.make(wait))
    assert second.run(wait)["status"] == "SUCCEEDED", "ten minutes are six seconds here"
    assert pair[0].client("stepfunctions").describe_execution(executionArn=waits)["status"] == "RUNNING"
    pair[0].client("stepfunctions").stop_execution(executionArn=waits)
    pair[0].control("clock", {"waits": 100.0, "limits": 60.0})


def test_state_machines_call_their_own_server(pair: list[Aws], name: str) -> None:
    for aws, account in zip(pair, ACCOUNTS, strict=True):
        machines, sns = Machines(aws, name), aws.client("sns")
        topic = sns.create_topic(Name=name)["TopicArn"]
        queue = aws.client("sqs").create_queue(QueueName=name)["QueueUrl"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=f"arn:aws:sqs:us-east-1:{account}:{name}")
        publish = {"TopicArn": topic, "Message": account}
        states = {
            "Who": call("sts:getCallerIdentity", {}, Next="Publish", ResultPath="$.who"),
            "Publish": {"Type": "Task", "Resource": "arn:aws:states:::sns:publish", "Parameters": publish, "End": True}
            | {"ResultPath": "$.published"},
        }
        ended = machines.run(states)
        assert (ended["status"], ended["output"]["who"]["Account"]) == ("SUCCEEDED", account)
        received = aws.client("sqs").receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
        assert len(received) == 1
        assert account in received[0]["Body"]


def test_a_key_of_one_is_refused_by_the_other(pair: list[Aws], name: str) -> None:
    for aws, other, account in zip(pair, reversed(pair), ACCOUNTS, strict=True):
        iam, sts = aws.client("iam"), aws.client("sts")
        iam.create_user(UserName=name)
        role = f"arn:aws:iam::{account}:role/{name}"
        issued = [
            (aws.access_key, aws.secret_key),
            keys_of(iam.create_access_key(UserName=name)),
            keys_of(sts.assume_role(RoleArn=role, RoleSessionName="one")),
            keys_of(sts.get_session_token()),
            keys_of(sts.get_federation_token(Name="one")),
        ]
        for key in issued:
            assert identity(aws, *key) == account
            with pytest.raises(ClientError, match="InvalidClientTokenId"):
                identity(other, *key)
        with pytest.raises(ClientError, match="AccessDenied"):
            other.client("sts").assume_role(RoleArn=role, RoleSessionName="one")


def test_the_account_that_a_request_names_by_itself_does_not_count(pair: list[Aws]) -> None:
    client = pair[1].client("sts")
    client.meta.events.register(
        "before-sign", lambda request, **_: request.headers.add_header("X-Moto-Account-Id", ACCOUNTS[0])
    )
    assert client.get_caller_identity()["Account"] == ACCOUNTS[1]


def test_the_end_of_one_leaves_the_other_serving(pair: list[Aws], name: str) -> None:
    first, second = pair
    second.client("s3").create_bucket(Bucket=name)
    toggle(first)
    wait_for(lambda: not (first.directory / "server.json").exists(), "the first server has ended")
    with pytest.raises(EndpointConnectionError):
        first.client("s3").list_buckets()
    assert name in {bucket["Name"] for bucket in second.client("s3").list_buckets()["Buckets"]}
    assert Work(second, f"{name}-work").run("true")["ProcessingJobStatus"] == "Completed"
    assert (second.directory / "server.json").exists()


def test_a_server_that_is_started_again_finds_nothing_of_the_ended_one(pair: list[Aws]) -> None:
    toggle(pair[0])
    again = started(pair[0].directory, pair[0].process)
    assert identity(again, again.access_key, again.secret_key) not in ACCOUNTS
    assert again.client("s3").list_buckets()["Buckets"] == []
    assert again.client("sns").list_topics()["Topics"] == []
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        identity(again, pair[0].access_key, pair[0].secret_key)
