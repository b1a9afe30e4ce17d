"""The CloudFormation types of compile stacks: created, changed, deleted in order, and doing what they are for."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.embedded_aws.helpers import Stacks, up
from tests.embedded_aws.running import Aws, wait_for
from tests.embedded_aws.work import trust

TAGS = [{"Key": "team", "Value": "documents"}]
PASS = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def att(name: str, attribute: str) -> dict[str, list[str]]:
    return {"Fn::GetAtt": [name, attribute]}


def network(port: int) -> dict[str, Any]:
    out = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "0.0.0.0/0", "Description": "out"}
    return {
        "Vpc": ("AWS::EC2::VPC", {"CidrBlock": "10.181.0.0/24", "EnableDnsHostnames": port == 443, "Tags": TAGS}),
        "Gateway": ("AWS::EC2::InternetGateway", {"Tags": TAGS}),
        "Attached": ("AWS::EC2::VPCGatewayAttachment", {"VpcId": ref("Vpc"), "InternetGatewayId": ref("Gateway")}),
        "Routes": ("AWS::EC2::RouteTable", {"VpcId": ref("Vpc"), "Tags": TAGS}),
        "Out": (
            "AWS::EC2::Route",
            {"RouteTableId": ref("Routes"), "DestinationCidrBlock": "0.0.0.0/0", "GatewayId": ref("Gateway")},
        ),
        "Subnet": (
            "AWS::EC2::Subnet",
            {
                "VpcId": ref("Vpc"),
                "CidrBlock": "10.181.0.0/26",
                "AvailabilityZone": {"Fn::Select": [1, {"Fn::GetAZs": ""}]},
                "MapPublicIpOnLaunch": True,
            },
        ),
        "Routed": ("AWS::EC2::SubnetRouteTableAssociation", {"SubnetId": ref("Subnet"), "RouteTableId": ref("Routes")}),
        "S3": (
            "AWS::EC2::VPCEndpoint",
            {
                "VpcId": ref("Vpc"),
                "ServiceName": {"Fn::Sub": "com.amazonaws.${AWS::Region}.s3"},
                "VpcEndpointType": "Gateway",
                "RouteTableIds": [ref("Routes")],
            },
        ),
        "Group": (
            "AWS::EC2::SecurityGroup",
            {"GroupDescription": "nothing in", "VpcId": ref("Vpc"), "SecurityGroupEgress": [out]},
        ),
    }


def test_a_network_comes_and_goes_as_a_whole(aws: Aws, stacks: Stacks, name: str) -> None:
    ids = up(stacks, name, network(80), network(443))
    ec2 = aws.client("ec2")
    subnet = ec2.describe_subnets(SubnetIds=[ids["Subnet"]])["Subnets"][0]
    assert (subnet["VpcId"], subnet["MapPublicIpOnLaunch"]) == (ids["Vpc"], True)
    assert subnet["AvailabilityZone"] == "us-east-1b"
    group = ec2.describe_security_groups(GroupIds=[ids["Group"]])["SecurityGroups"][0]
    assert group["IpPermissions"] == []
    rules = [(rule["FromPort"], rule["IpRanges"]) for rule in group["IpPermissionsEgress"]]
    assert rules == [(443, [{"CidrIp": "0.0.0.0/0", "Description": "out"}])], "and no rule for everything"
    table = ec2.describe_route_tables(RouteTableIds=[ids["Routes"]])["RouteTables"][0]
    assert ids["Gateway"] in {route.get("GatewayId") for route in table["Routes"]}
    assert table["Associations"][0]["SubnetId"] == ids["Subnet"]
    names = ec2.describe_vpc_attribute(VpcId=ids["Vpc"], Attribute="enableDnsHostnames")["EnableDnsHostnames"]
    assert names["Value"] is True
    assert stacks.down(name) == "DELETE_COMPLETE", stacks.failures(name)
    assert ids["Vpc"] not in {vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]}
    endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    assert ids["S3"] not in {item["VpcEndpointId"] for item in endpoints if item["State"] != "deleted"}


def test_flow_logs(aws: Aws, stacks: Stacks, name: str) -> None:
    ids = up(stacks, name, {
        "Vpc": ("AWS::EC2::VPC", {"CidrBlock": "10.0.0.0/24"}),
        "Log": ("AWS::Logs::LogGroup", {"LogGroupName": f"/{name}"}),
        "Role": ("AWS::IAM::Role", {"AssumeRolePolicyDocument": json.loads(trust("vpc-flow-logs.amazonaws.com"))}),
        "Flow": ("AWS::EC2::FlowLog", {
            "ResourceId": ref("Vpc"), "ResourceType": "VPC", "TrafficType": "REJECT", "LogGroupName": ref("Log"),
            "DeliverLogsPermissionArn": att("Role", "Arn"),
        }),
    })  # fmt: skip
    ec2 = aws.client("ec2")
    assert ec2.describe_flow_logs(FlowLogIds=[ids["Flow"]])["FlowLogs"][0]["TrafficType"] == "REJECT"
    assert stacks.down(name) == "DELETE_COMPLETE", stacks.failures(name)


def template(script: str, **more: Any) -> tuple[str, dict[str, Any]]:
    return "AWS::EC2::LaunchTemplate", {
        "LaunchTemplateData": {
            "ImageId": "ami-0123456789abcdef0",
            "InstanceType": "c5.4xlarge",
            "InstanceInitiatedShutdownBehavior": "terminate",
            "IamInstanceProfile": {"Arn": att("Profile", "Arn")},
            "SecurityGroupIds": [att("Group", "GroupId")],
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 100, "Encrypted": True}}],
            "UserData": {"Fn::Base64": script},
            **more,
        }
    }


def test_a_launch_template_starts_instances_of_its_latest_version(aws: Aws, stacks: Stacks, name: str) -> None:
    def resources(script: str) -> dict[str, Any]:
        return {
            **network(443),
            "Role": ("AWS::IAM::Role", {"AssumeRolePolicyDocument": json.loads(trust("ec2.amazonaws.com"))}),
            "Profile": ("AWS::IAM::InstanceProfile", {"Roles": [ref("Role")]}),
            "Template": template(script),
            "Version": (
                "AWS::SSM::Parameter",
                {"Name": f"/{name}", "Type": "String", "Value": att("Template", "LatestVersionNumber")},
            ),
        }

    ids = up(stacks, name, resources("#!/bin/sh\nsleep 600"), resources("#!/bin/sh\necho new; shutdown -h now"))
    version = aws.client("ssm").get_parameter(Name=f"/{name}")["Parameter"]["Value"]
    assert version == "2"
    ec2 = aws.client("ec2")
    launched = ec2.run_instances(
        LaunchTemplate={"LaunchTemplateId": ids["Template"], "Version": version},
        SubnetId=ids["Subnet"],
        MinCount=1,
        MaxCount=1,
    )["Instances"][0]
    assert [group["GroupId"] for group in launched["SecurityGroups"]] == [ids["Group"]]

    def state() -> str:
        seen = ec2.describe_instances(InstanceIds=[launched["InstanceId"]])
        return str(seen["Reservations"][0]["Instances"][0]["State"]["Name"])

    wait_for(lambda: state() == "terminated", "the instance ends itself")
    output = ec2.get_console_output(InstanceId=launched["InstanceId"])["Output"]
    assert output.startswith("new")
    assert stacks.down(name) == "DELETE_COMPLETE", stacks.failures(name)


def machine(definition: Any, **more: Any) -> tuple[str, dict[str, Any]]:
    return "AWS::StepFunctions::StateMachine", {
        "RoleArn": att("Role", "Arn"), "DefinitionString": json.dumps(definition), **more,
    }  # fmt: skip


def test_a_state_machine_with_substitutions_and_a_log(aws: Aws, stacks: Stacks, name: str) -> None:
    def resources(said: str, level: str) -> dict[str, Any]:
        state = {"Type": "Pass", "Result": {"topic": "${Topic}", "said": said}, "End": True}
        destination = {"CloudWatchLogsLogGroup": {"LogGroupArn": att("Log", "Arn")}}
        return {
            "Role": ("AWS::IAM::Role", {"AssumeRolePolicyDocument": json.loads(trust("states.amazonaws.com"))}),
            "Topic": ("AWS::SNS::Topic", {}),
            "Log": ("AWS::Logs::LogGroup", {"LogGroupName": f"/aws/vendedlogs/states/{name}"}),
            "Machine": machine(
                {"StartAt": "P", "States": {"P": state}},
                DefinitionSubstitutions={"Topic": ref("Topic")},
                LoggingConfiguration={"Level": level, "IncludeExecutionData": True, "Destinations": [destination]},
                Tags=TAGS,
            ),
        }

    ids = up(stacks, name, resources("one", "OFF"), resources("two", "ALL"))
    client, logs = aws.client("stepfunctions"), aws.client("logs")
    execution = client.start_execution(stateMachineArn=ids["Machine"], name="run")["executionArn"]
    wait_for(lambda: client.describe_execution(executionArn=execution)["status"] == "SUCCEEDED", "it ends")
    output = json.loads(client.describe_execution(executionArn=execution)["output"])
    assert output == {"topic": ids["Topic"], "said": "two"}
    group = f"/aws/vendedlogs/states/{name}"

    def types() -> set[str]:
        streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
        pages = [logs.get_log_events(logGroupName=group, logStreamName=s["logStreamName"]) for s in streams]
        return {json.loads(event["message"])["type"] for page in pages for event in page["events"]}

    wait_for(lambda: {"ExecutionStarted", "ExecutionSucceeded"} <= types(), "the events are logged")
    tags = client.list_tags_for_resource(resourceArn=ids["Machine"])["tags"]
    assert {"key": "team", "value": "documents"} in tags
    assert stacks.down(name) == "DELETE_COMPLETE"


@pytest.mark.parametrize("end", ["ABORTED", "TIMED_OUT", "SUCCEEDED"])
def test_a_rule_starts_the_cleanup_when_an_execution_ends_badly(aws: Aws, stacks: Stacks, name: str, end: str) -> None:
    seconds = {"ABORTED": 80000, "TIMED_OUT": 80000, "SUCCEEDED": 1}[end]
    wait = {"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": seconds, "End": True}}, "TimeoutSeconds": 60}
    detail = {"stateMachineArn": [ref("Run")], "status": ["ABORTED", "FAILED", "TIMED_OUT"]}
    pattern = {"source": ["aws.states"], "detail-type": ["Step Functions Execution Status Change"], "detail": detail}
    target = {"Id": "C", "Arn": ref("Cleanup"), "RoleArn": att("Role", "Arn"), "InputPath": "$.detail"}
    ids = up(stacks, name, {
        "Role": ("AWS::IAM::Role", {"AssumeRolePolicyDocument": json.loads(trust("states.amazonaws.com"))}),
        "Run": machine(wait), "Cleanup": machine(PASS),
        "Rule": ("AWS::Events::Rule", {"EventPattern": pattern, "State": "ENABLED", "Targets": [target], "Tags": TAGS}),
    })  # fmt: skip
    client = aws.client("stepfunctions")
    run = client.start_execution(stateMachineArn=ids["Run"], name="run-1", input='{"submission": "x"}')["executionArn"]
    if end == "ABORTED":
        client.stop_execution(executionArn=run)
    wait_for(lambda: client.describe_execution(executionArn=run)["status"] == end, "the run ends")

    def started() -> list[dict[str, Any]]:
        rows = client.list_executions(stateMachineArn=ids["Cleanup"])["executions"]
        return [json.loads(client.describe_execution(executionArn=row["executionArn"])["input"]) for row in rows]

    if end != "SUCCEEDED":
        wait_for(started, "the cleanup is started")
        (given,) = started()
        assert (given["name"], given["status"]) == ("run-1", end)
        assert json.loads(given["input"]) == {"submission": "x"}
        assert given["executionArn"] == run
    else:
        assert started() == []
    assert stacks.down(name) == "DELETE_COMPLETE", stacks.failures(name)


def refused(stacks: Stacks, name: str, kind: str, properties: dict[str, Any]) -> str:
    """The reason for which a stack with one resource fails."""
    stacks.up(name, {"Resources": {"It": {"Type": kind, "Properties": properties}}})
    return stacks.failures(name)["It"]


def test_what_is_not_honoured_fails_the_stack(stacks: Stacks, name: str) -> None:
    data = {"ImageId": "ami-0123456789abcdef0", "KeyName": "mine", "UserData": base64.b64encode(b"x").decode()}
    said = refused(stacks, f"{name}-a", "AWS::EC2::LaunchTemplate", {"LaunchTemplateData": data})
    assert "does not honour KeyName of a launch template" in said
    nowhere = [{"Id": "a", "Arn": "arn:aws:lambda:us-east-1:123456789012:function:f"}]
    rule = {"EventPattern": {"source": ["aws.states"]}, "Targets": nowhere}
    assert "state machines and topics" in refused(stacks, f"{name}-b", "AWS::Events::Rule", rule)
    role = "arn:aws:iam::123456789012:role/r"
    both = {"RoleArn": role, "DefinitionString": "{}", "Definition": {}}
    assert "exactly one of" in refused(stacks, f"{name}-c", "AWS::StepFunctions::StateMachine", both)
    broken = {"RoleArn": role, "DefinitionString": '{"StartAt": "A"}'}
    assert "InvalidDefinition" in refused(stacks, f"{name}-d", "AWS::StepFunctions::StateMachine", broken)
    missing = {"RoleArn": role, "DefinitionString": json.dumps({"x": "${a}"}), "DefinitionSubstitutions": {"b": "c"}}
    assert "has no a" in refused(stacks, f"{name}-e", "AWS::StepFunctions::StateMachine", missing)
    express = {"RoleArn": role, "DefinitionString": json.dumps(PASS), "StateMachineType": "EXPRESS"}
    assert "STANDARD, not EXPRESS" in refused(stacks, f"{name}-f", "AWS::StepFunctions::StateMachine", express)
