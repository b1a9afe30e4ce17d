"""What several test files use: endpoints, instances and stacks by boto3, the command line."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.embedded_aws.running import MODULE, ROOT, Aws, wait_for
from tests.embedded_aws.work import trust

IMAGE = "ami-0123456789abcdef0"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MODULE, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


class Stacks:
    """Stacks by boto3: `up` creates or updates, waits and gives back the description."""

    def __init__(self, aws: Aws) -> None:
        self.client = aws.client("cloudformation")

    def up(self, name: str, template: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
        body = template if isinstance(template, str) else json.dumps(template)
        given = {"StackName": name, "TemplateBody": body, "Capabilities": ["CAPABILITY_NAMED_IAM"], **more}
        present = {stack["StackName"] for stack in self.client.describe_stacks()["Stacks"]}
        (self.client.update_stack if name in present else self.client.create_stack)(**given)
        return self.settled(name)

    def settled(self, name: str) -> dict[str, Any]:
        def stack() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.describe_stacks(StackName=name)["Stacks"][0]
            return None if found["StackStatus"].endswith("_IN_PROGRESS") else found

        return wait_for(stack, f"stack {name} settles")

    def down(self, name: str) -> str:
        """Delete; the last status."""
        stack_id = self.client.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
        self.client.delete_stack(StackName=name)
        return self.settled(stack_id)["StackStatus"]

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """Logical id, status and reason, oldest first."""
        events = self.client.describe_stack_events(StackName=name)["StackEvents"]
        rows = [(e["LogicalResourceId"], e["ResourceStatus"], e.get("ResourceStatusReason", "")) for e in events]
        return rows[::-1]

    def failures(self, name: str) -> dict[str, str]:
        """Logical id to reason of what failed."""
        return {logical: reason for logical, status, reason in self.events(name) if status.endswith("_FAILED")}

    def physical(self, name: str) -> dict[str, str]:
        """Logical id to physical id."""
        rows = self.client.describe_stack_resources(StackName=name)["StackResources"]
        return {row["LogicalResourceId"]: row["PhysicalResourceId"] for row in rows}


@dataclass
class Hosting:
    """One endpoint by boto3, without CloudFormation."""

    aws: Aws
    name: str
    made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sagemaker, self.s3 = self.aws.client("sagemaker"), self.aws.client("s3")
        self.runtime = self.aws.client("sagemaker-runtime")
        self.s3.create_bucket(Bucket=self.name)

    def config(self, label: str, content: bytes | None = None, **variant: Any) -> str:
        """Publish an artifact, make a model and a configuration named after `label`."""
        name, key = f"{self.name}-{label}", f"models/{label}/model.tar.gz"
        if content is not None:
            self.s3.put_object(Bucket=self.name, Key=key, Body=content)
        container = {"Image": "image", "ModelDataUrl": f"s3://{self.name}/{key}", "Environment": {"FLAVOUR": label}}
        role = "arn:aws:iam::123456789012:role/any"
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role)
        given = {"VariantName": "main", "ModelName": name, "InstanceType": "ml.inf2.xlarge", "InitialInstanceCount": 1}
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**given, **variant}])
        return name

    def up(self, config: str) -> dict[str, Any]:
        """Create the endpoint and wait."""
        self.sagemaker.create_endpoint(EndpointName=self.name, EndpointConfigName=config)
        return self.settled()

    def update(self, config: str, **more: Any) -> dict[str, Any]:
        """Update the endpoint and wait."""
        self.sagemaker.update_endpoint(EndpointName=self.name, EndpointConfigName=config, **more)
        return self.settled()

    def settled(self) -> dict[str, Any]:
        def described() -> dict[str, Any] | None:
            found = self.sagemaker.describe_endpoint(EndpointName=self.name)
            return None if found["EndpointStatus"] in {"Creating", "Updating"} else found

        return wait_for(described, "the endpoint settles")

    def invoke(self, body: bytes = b"hello", **more: Any) -> dict[str, Any]:
        """Invoke; the worker's own account of what it saw."""
        answer = self.runtime.invoke_endpoint(EndpointName=self.name, Body=body, **more)
        return {**json.loads(answer.pop("Body").read()), "answer": answer}

    def fails(self, body: bytes, **more: Any) -> dict[str, Any]:
        """Invoke what must fail; the error's response."""
        with pytest.raises(ClientError) as caught:
            self.invoke(body, **more)
        return caught.value.response

    def logs(self) -> str:
        """Everything in the endpoint's log group."""
        client, group = self.aws.client("logs"), f"/aws/sagemaker/Endpoints/{self.name}"
        streams = client.describe_log_streams(logGroupName=group)["logStreams"]
        pages = [client.get_log_events(logGroupName=group, logStreamName=s["logStreamName"]) for s in streams]
        return "\n".join(event["message"] for page in pages for event in page["events"])


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class Fleet:
    """A bucket, a role for instances and a launch template a script."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws, self.name, self.bucket = aws, name, f"{name}-bucket"
        self.ec2, self.s3, iam = aws.client("ec2"), aws.client("s3"), aws.client("iam")
        self.s3.create_bucket(Bucket=self.bucket)
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("ec2.amazonaws.com"))
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    def template(self, script: str, minutes: int = 6000, **more: Any) -> str:
        """A launch template whose instances end after `minutes` (here a sixtieth of them); its id."""
        if "curl" in script and shutil.which("curl") is None:
            pytest.skip("NO CURL: the user data of this test was not run; apt-get install curl")
        text = f"#!/bin/sh\nshutdown -h +{minutes}\nexport AWS_DEFAULT_REGION=us-east-1\n{script}\n"
        data = {
            "ImageId": IMAGE,
            "InstanceType": "c5.4xlarge",
            "InstanceInitiatedShutdownBehavior": "terminate",
            "IamInstanceProfile": {"Name": self.name},
            "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "of", "Value": "template"}]}],
            "UserData": base64.b64encode(text.encode()).decode(),
            **more,
        }
        name = f"{self.name}-{time.monotonic_ns()}"
        made = self.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    def launch(self, template: str, **more: Any) -> dict[str, Any]:
        """Start an instance."""
        tags = [{"Key": "inferentia:index", "Value": "0"}, {"Key": "inferentia:bucket", "Value": self.bucket}]
        given = {
            "LaunchTemplate": {"LaunchTemplateId": template, "Version": "1"},
            "MinCount": 1,
            "MaxCount": 1,
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
            **more,
        }
        return dict(self.ec2.run_instances(**given)["Instances"][0])

    def run(self, script: str, **more: Any) -> str:
        """Start an instance with a script; its id."""
        return str(self.launch(self.template(script, **more))["InstanceId"])

    def seen(self, instance: str) -> dict[str, Any]:
        """The description."""
        return dict(self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0])

    def ended(self, instance: str) -> dict[str, Any]:
        """The description once it is terminated."""

        def described() -> dict[str, Any] | None:
            found = self.seen(instance)
            return found if found["State"]["Name"] == "terminated" else None

        return dict(wait_for(described, "the instance is terminated"))

    def read(self, key: str) -> str:
        """An object, waited for."""

        def there() -> bool:
            return bool(self.s3.list_objects_v2(Bucket=self.bucket, Prefix=key)["KeyCount"])

        wait_for(there, f"{key} is in the bucket")
        return str(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read().decode())

    def console(self, instance: str) -> str:
        """What it printed."""
        return str(self.ec2.get_console_output(InstanceId=instance)["Output"])


def up(stacks: Stacks, name: str, *versions: dict[str, Any]) -> dict[str, str]:
    """Bring the stack through the versions of its resources; the last physical ids."""
    for resources in versions:
        shaped = {key: {"Type": kind, "Properties": properties} for key, (kind, properties) in resources.items()}
        made = stacks.up(name, {"Resources": shaped})
        assert made["StackStatus"] in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}, stacks.failures(name)
    return stacks.physical(name)
