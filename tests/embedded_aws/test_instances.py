"""EC2 instances that run their user data: what it sees, and every way in which an instance ends."""

from __future__ import annotations

import base64
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.helpers import IMAGE, Fleet
from tests.embedded_aws.running import Aws, running, wait_for
from tests.embedded_aws.work import arm

TOKEN = 'token=$(curl -fsS -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token")'  # noqa: E501
GET = 'get() { curl -fsS -H "X-aws-ec2-metadata-token: $token" "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/$1"; }'


@pytest.fixture
def fleet(aws: Aws, name: str) -> Fleet:
    return Fleet(aws, name)


def test_user_data_runs_with_its_metadata_and_terminates_the_instance(fleet: Fleet) -> None:
    script = f"""set -eu
        {TOKEN}; {GET}
        bucket=$(get meta-data/tags/instance/inferentia:bucket)
        get meta-data/tags/instance > out; echo >> out
        for name in instance-id instance-type placement/region instance-life-cycle tags/instance/inferentia:index; do
            get meta-data/$name >> out; echo >> out
        done
        get meta-data/spot/instance-action || echo no notice >> out
        aws s3 cp --only-show-errors out s3://$bucket/out
        mkdir -p tree/deep; echo 1 > tree/a; echo 2 > tree/deep/b
        aws s3 cp --recursive --only-show-errors tree s3://$bucket/tree
        aws s3 sync s3://$bucket/tree back; cat back/a back/deep/b
        aws s3api head-object --bucket $bucket --key nothing || echo "head says $?"
        aws sts get-caller-identity | grep -c 123456789012
        aws s3 frobnicate || echo "wrong use is $?"
        echo first; exec shutdown -h now"""
    template = fleet.template(script)
    launched = fleet.launch(template)
    assert launched["State"]["Name"] == "pending"
    instance = launched["InstanceId"]
    ended = fleet.ended(instance)
    assert ended["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    lines = fleet.read("out").splitlines()
    assert sorted(lines[:3]) == ["inferentia:bucket", "inferentia:index", "of"], "AWS's own tags are not shown"
    assert lines[3:] == [instance, "c5.4xlarge", "us-east-1", "on-demand", "0", "no notice"]
    assert fleet.read("tree/deep/b") == "2\n"
    console = fleet.console(instance)
    for said in ("Shutdown scheduled in 6000 minutes.", "\n1\n2\n", "head says 254", "wrong use is 252", "first"):
        assert said in console, console


@pytest.mark.slow
def test_metadata_wants_a_token(fleet: Fleet) -> None:
    url = "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest"
    put = f'curl -s -o /dev/null -w "%{{http_code}}\\n" -X PUT {url}/api/token'
    instance = fleet.run(f"""
        curl -s -o /dev/null -w "none %{{http_code}}\\n" {url}/meta-data/instance-id
        curl -s -o /dev/null -w "wrong %{{http_code}}\\n" -H "X-aws-ec2-metadata-token: x" {url}/meta-data/instance-id
        echo no life $({put}); echo too long $({put} -H "X-aws-ec2-metadata-token-ttl-seconds: 21601")
        echo forwarded $({put} -H "X-aws-ec2-metadata-token-ttl-seconds: 60" -H "X-Forwarded-For: 1.2.3.4")
        shutdown -h now""")
    fleet.ended(instance)
    console = fleet.console(instance)
    for said in ("none 401", "wrong 401", "no life 400", "too long 400", "forwarded 403"):
        assert said in console


def test_without_a_profile_there_are_no_credentials_and_without_leave_no_tags(fleet: Fleet) -> None:
    script = f"""{TOKEN}; {GET}; get meta-data/tags/instance/of || echo no tags
        aws sts get-caller-identity 2>&1; shutdown -h now"""
    instance = fleet.run(script, IamInstanceProfile={}, MetadataOptions={"HttpTokens": "required"})
    fleet.ended(instance)
    assert "no tags" in fleet.console(instance)
    assert "Unable to locate credentials" in fleet.console(instance)


@pytest.mark.slow
def test_an_instance_that_hangs_is_gone_after_its_limit(fleet: Fleet) -> None:
    arm(fleet.aws, kind="instance", action="hang", where=f"inferentia:bucket={fleet.bucket}", after_seconds=1)
    instance = fleet.run("while :; do sleep 0.2; done", minutes=2)  # here 2 s, and 15 until it is killed
    ended = fleet.ended(instance)
    assert ended["StateReason"]["Message"] == "Client.InstanceInitiatedShutdown: Instance initiated shutdown"


def test_terminating_ends_the_processes_and_lets_a_trap_run(fleet: Fleet) -> None:
    script = f"""finish() {{ echo bye | aws s3 cp - s3://{fleet.bucket}/bye; exit 143; }}
        trap finish TERM; echo begun | aws s3 cp - s3://{fleet.bucket}/begun; sleep 600 & wait"""
    instance = fleet.run(script)
    fleet.read("begun")
    mine = [p for p in fleet.aws.workers() if instance in " ".join(p.cmdline())]
    assert mine
    answer = fleet.ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "shutting-down")
    assert fleet.ended(instance)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    assert fleet.read("bye") == "bye\n"
    assert psutil.wait_procs(mine, timeout=5)[1] == []
    fleet.ec2.terminate_instances(InstanceIds=[instance])


def test_a_spot_interruption_is_told_and_carried_out(fleet: Fleet) -> None:
    arm(fleet.aws, kind="instance", action="interrupt", where=fleet.bucket)
    script = f"{TOKEN}; {GET}; until get meta-data/spot/instance-action; do sleep 0.2; done; sleep 600"
    instance = fleet.run(script, InstanceMarketOptions={"MarketType": "spot"})
    assert fleet.seen(instance)["InstanceLifecycle"] == "spot"
    ended = fleet.ended(instance)
    assert ended["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    assert '"action": "terminate"' in fleet.console(instance)


def test_a_crash_leaves_no_time(fleet: Fleet) -> None:
    arm(fleet.aws, kind="instance", action="crash", where=fleet.bucket, after_seconds=0.5)
    instance = fleet.run(f"trap 'aws s3 cp user-data s3://{fleet.bucket}/late' TERM; sleep 600 & wait")
    assert fleet.ended(instance)["StateReason"]["Code"] == "Server.InternalError"
    assert fleet.s3.list_objects_v2(Bucket=fleet.bucket)["KeyCount"] == 0


def test_the_same_client_token_starts_one_instance(fleet: Fleet) -> None:
    template = fleet.template("shutdown -h now")
    first = fleet.launch(template, ClientToken=fleet.name)
    assert fleet.launch(template, ClientToken=fleet.name)["InstanceId"] == first["InstanceId"]
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        fleet.launch(template, ClientToken=fleet.name, InstanceType="c5.large")
    assert fleet.launch(template)["InstanceId"] != first["InstanceId"]


@pytest.mark.slow
def test_a_new_version_of_a_template(fleet: Fleet) -> None:
    template = fleet.template("shutdown -h now")
    text = base64.b64encode(b"#!/bin/sh\necho second; shutdown -h now\n").decode()
    data = {"ImageId": IMAGE, "InstanceInitiatedShutdownBehavior": "terminate", "UserData": text}
    fleet.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=data)
    launched = fleet.launch(template, LaunchTemplate={"LaunchTemplateId": template, "Version": "2"})
    fleet.ended(launched["InstanceId"])
    assert "second" in fleet.console(launched["InstanceId"])


def test_capacity_that_is_short_for_a_while(fleet: Fleet) -> None:
    template = fleet.template("shutdown -h now")
    arm(fleet.aws, kind="call", action="error", operation="ec2:RunInstances", where=template, times=2,
        error="InsufficientInstanceCapacity")  # fmt: skip
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            fleet.launch(template)
        assert caught.value.response["Error"]["Code"] == "InsufficientInstanceCapacity"
    fleet.ended(fleet.launch(template)["InstanceId"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ImageId": "ami-x"}, "InvalidAMIID.Malformed"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "Invalid IAM Instance Profile name"),
        ({"MaxCount": 2}, "UnsupportedOperation"),
        ({"KeyName": "mine"}, "does not honour KeyName of RunInstances"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a/b", "Value": "x"}]}]}, "a/b"),
    ],
)
def test_what_ec2_refuses(fleet: Fleet, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ClientError, match=said):
        fleet.launch(fleet.template("true"), **more)


@pytest.mark.slow
def test_instances_die_with_the_server(tmp_path: Any) -> None:
    with running(tmp_path / "aws") as aws:
        Fleet(aws, "dies").run("sleep 600 & sleep 600")
        wait_for(lambda: any("sleep" in p.name() for p in aws.workers()), "the user data runs")
        workers = aws.workers()
        aws.end()
        assert psutil.wait_procs(workers, timeout=10)[1] == []
