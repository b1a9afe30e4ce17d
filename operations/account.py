"""The account that commands talk to: clients, the stacks' outputs, and the guard that keeps rehearsals on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from endpoint_spec.loopback import is_loopback

from .errors import OperationError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_stepfunctions import SFNClient

ARTIFACTS_STACK = "InferentiaArtifacts"
# A real-time invocation takes at most 60 s (SageMaker developer guide, real-time endpoints); one retry hides nothing.
CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=10, read_timeout=70)


class Account:
    """Clients of one account and region, made when first used; configured by boto3's usual environment."""

    def __init__(self) -> None:
        self._more: dict[str, Any] = {}
        self._only_here = ""

    @cached_property
    def cloudformation(self) -> CloudFormationClient:
        """AWS CloudFormation."""
        return boto3.client("cloudformation", config=CONFIG)

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        """Amazon CloudWatch."""
        return boto3.client("cloudwatch", config=CONFIG)

    @cached_property
    def s3(self) -> S3Client:
        """Amazon S3."""
        return boto3.client("s3", config=CONFIG)

    @cached_property
    def sagemaker(self) -> SageMakerClient:
        """Amazon SageMaker."""
        return boto3.client("sagemaker", config=CONFIG)

    @cached_property
    def runtime(self) -> SageMakerRuntimeClient:
        """Amazon SageMaker Runtime, which invokes endpoints."""
        return boto3.client("sagemaker-runtime", config=CONFIG)

    @cached_property
    def stepfunctions(self) -> SFNClient:
        """AWS Step Functions, which runs compile jobs."""
        return boto3.client("stepfunctions", config=CONFIG)

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        """Amazon CloudWatch Logs."""
        return boto3.client("logs", config=CONFIG)

    @cached_property
    def ec2(self) -> EC2Client:
        """Amazon EC2."""
        return boto3.client("ec2", config=CONFIG)

    def client(self, service: str) -> Any:
        """Another service, made when first used."""
        if service not in self._more:
            self._more[service] = boto3.client(service, config=CONFIG)  # type: ignore[call-overload]
            if self._only_here:
                _refuse_beyond_this_machine(self._more[service].meta.endpoint_url, self._only_here)
        return self._more[service]

    def guard(self, *, what: str) -> None:
        """Refuse to bring `what` (a rehearsal, or an artifact made with a stand-in) anywhere but to loopback.

        The addresses checked are those that the clients resolved, whichever setting they came from.

        Raises:
            OperationError: when any client would leave this machine.
        """
        services = (self.cloudformation, self.s3, self.sagemaker, self.runtime, self.stepfunctions, self.logs, self.ec2)
        self._only_here = what
        for client in services:
            _refuse_beyond_this_machine(client.meta.endpoint_url, what)

    def outputs(self, stack: str, *keys: str) -> dict[str, str]:
        """Every output of a stack; `keys` must be among them.

        Raises:
            OperationError: where the stack or one of the keys does not exist.
        """
        try:
            description = self.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError as error:
            if code_of(error) != "ValidationError":
                raise
            raise OperationError(
                f'stack {stack} is not deployed here. Deploy it first: "cdk deploy {stack}".'
            ) from error
        found = {row.get("OutputKey", ""): row.get("OutputValue", "") for row in description.get("Outputs", [])}
        for key in keys:
            if key not in found:
                raise OperationError(
                    f"stack {stack} ({description['StackStatus']}) has no output {key}. "
                    f'It was deployed by another version; deploy it again: "cdk deploy {stack}".'
                )
        return found

    @property
    def artifact_bucket(self) -> str:
        """Name of the bucket with the artifacts; raises OperationError as `outputs` does."""
        return self.outputs(ARTIFACTS_STACK, "ArtifactBucketName")["ArtifactBucketName"]


@contextmanager
def translate_aws_errors() -> Iterator[None]:
    """Turn boto3's exceptions into an OperationError that says what to do."""
    try:
        _check_addresses()
        yield
    except NoCredentialsError as error:
        raise OperationError("no AWS credentials found. Configure them (aws configure, or AWS_PROFILE).") from error
    except NoRegionError as error:
        raise OperationError("no AWS region set. Set AWS_REGION, for example AWS_REGION=us-east-1.") from error
    except (ClientError, BotoCoreError, Boto3Error) as error:
        raise OperationError(f"AWS answered: {error}") from error


def code_of(error: ClientError) -> str:
    """The code of an answer such as AccessDenied."""
    return error.response.get("Error", {}).get("Code", "")


def _refuse_beyond_this_machine(url: str, what: str) -> None:
    if not is_loopback(url):
        raise OperationError(
            f"refused: {what} may only go to the embedded AWS on this machine, but boto3 would talk to {url}. "
            'Start it with "make up" and load its environment, or build for real with '
            '"inferentia build NAME" (without --rehearse).'
        )


def _check_addresses() -> None:
    """boto3 raises a bare ValueError for an endpoint that is no address; say which setting it is."""
    for name, url in sorted(os.environ.items()):
        if not name.startswith("AWS_ENDPOINT_URL") or not url:
            continue
        try:
            usable = bool(urlsplit(url).hostname)
        except ValueError:
            usable = False
        if not usable:
            raise OperationError(f"{name}={url} is no address. Write one such as http://localhost:4566, or unset it.")


def stack_of(name: str) -> str:
    """The stack of an endpoint."""
    return f"InferentiaEndpoint-{name}"


def stack_status(name: str, account: Account) -> str:
    """CloudFormation's status of an endpoint's stack, "" where there is none."""
    return stack_status_of(stack_of(name), account)


def stack_status_of(stack: str, account: Account) -> str:
    """CloudFormation's status of a stack, "" where there is none."""
    try:
        return account.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
    except ClientError as error:
        if code_of(error) != "ValidationError":
            raise
        return ""
