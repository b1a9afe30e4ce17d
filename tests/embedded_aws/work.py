"""Small Processing jobs for the tests: shell scripts in a bucket, run as SageMaker would run them."""

from __future__ import annotations

import json
from typing import Any

from endpoint_spec import platforms
from tests.embedded_aws.running import Aws, wait_for

IMAGE = platforms.image("inf1", "torchserve")
IMAGE_URI = f"{platforms.registry_account('us-east-1')}.dkr.ecr.us-east-1.amazonaws.com/{IMAGE.repository}:{IMAGE.tag}"
INPUT, OUTPUT = "/opt/ml/processing/input", "/opt/ml/processing/output"


def trust(service: str) -> str:
    """A trust policy for an AWS service."""
    allow = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [allow]})


def arm(aws: Aws, **fault: Any) -> None:
    """Arm a fault, as `inferentia rehearsal fault` does."""
    aws.control("faults", fault)


class Work:
    """A bucket, a role and jobs that run a shell script from the bucket."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws, self.name, self.bucket = aws, name, f"{name}-bucket"
        self.s3, self.sagemaker, self.logs = (aws.client(service) for service in ("s3", "sagemaker", "logs"))
        self.s3.create_bucket(Bucket=self.bucket)
        created = aws.client("iam").create_role(
            RoleName=f"{name}-role", AssumeRolePolicyDocument=trust("sagemaker.amazonaws.com")
        )
        self.role = created["Role"]["Arn"]

    def put(self, key: str, body: bytes | str) -> str:
        """Store an object; its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str) -> bytes:
        """An object."""
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str = "") -> list[str]:
        """The keys below a prefix."""
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [item["Key"] for item in found]

    def request(self, script: str = "", **more: Any) -> dict[str, Any]:
        """CreateProcessingJob's parameters for a script; outputs `variant` (EndOfJob) and `record` (Continuous)."""
        self.put("code/start.sh", script)
        resources = {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.c5.4xlarge", "VolumeSizeInGB": 30}}
        return {
            "ProcessingJobName": self.name,
            "RoleArn": self.role,
            "ProcessingResources": resources,
            "AppSpecification": {
                "ImageUri": IMAGE_URI,
                "ContainerEntrypoint": ["/bin/sh", f"{INPUT}/project/start.sh"],
                "ContainerArguments": ["variant", "0", INPUT, OUTPUT],
            },
            "Environment": {"INFERENTIA_MESSAGE_FILE": "/opt/ml/output/message"},
            "ProcessingInputs": [self.source("project", "code/")],
            "ProcessingOutputConfig": {
                "Outputs": [self.target("variant", "EndOfJob"), self.target("record", "Continuous")]
            },
            **more,
        }

    def source(self, name: str, key: str, kind: str = "S3Prefix") -> dict[str, Any]:
        """One input."""
        uri = f"s3://{self.bucket}/{key}"
        given = {"S3Uri": uri, "LocalPath": f"{INPUT}/{name}", "S3DataType": kind, "S3InputMode": "File"}
        return {"InputName": name, "S3Input": given}

    def target(self, name: str, mode: str) -> dict[str, Any]:
        """One output."""
        uri = f"s3://{self.bucket}/out/{name}/"
        given = {"S3Uri": uri, "LocalPath": f"{OUTPUT}/{name}", "S3UploadMode": mode}
        return {"OutputName": name, "S3Output": given}

    def start(self, script: str, **more: Any) -> None:
        """Create the job."""
        self.sagemaker.create_processing_job(**self.request(script, **more))

    def run(self, script: str, **more: Any) -> dict[str, Any]:
        """Create the job and wait for its end."""
        self.start(script, **more)
        return self.ended(more.get("ProcessingJobName", self.name))

    def status(self, job: str | None = None) -> str:
        """The status now."""
        found = self.sagemaker.describe_processing_job(ProcessingJobName=job or self.name)
        return str(found["ProcessingJobStatus"])

    def ended(self, job: str | None = None) -> dict[str, Any]:
        """The description once the job has ended."""

        def described() -> dict[str, Any] | None:
            found: dict[str, Any] = self.sagemaker.describe_processing_job(ProcessingJobName=job or self.name)
            return None if found["ProcessingJobStatus"] in {"InProgress", "Stopping"} else found

        return dict(wait_for(described, "the job ends"))

    def log(self, job: str | None = None) -> str:
        """What the job printed, from CloudWatch Logs."""
        group, prefix = "/aws/sagemaker/ProcessingJobs", f"{job or self.name}/"
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
        except self.logs.exceptions.ResourceNotFoundException:
            return ""
        pages = [self.logs.get_log_events(logGroupName=group, logStreamName=s["logStreamName"]) for s in streams]
        return "\n".join(event["message"] for page in pages for event in page["events"])
