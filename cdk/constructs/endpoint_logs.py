"""The log group that SageMaker writes an endpoint's container output to."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


def log_group_name(endpoint_name: str) -> str:
    """SageMaker's fixed name (https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html)."""
    return f"/aws/sagemaker/Endpoints/{endpoint_name}"


class EndpointLogs(Construct):
    """Made before the endpoint, because a log group that SageMaker makes itself keeps everything for ever.

    It is deleted with the stack: its name is fixed, so a retained one would stand in the way of the next deployment.
    To read what a container said that never started, deploy with `cdk deploy --no-rollback`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        endpoint_name: str,
        encryption_key: kms.IKey,
        retention: logs.RetentionDays = logs.RetentionDays.THREE_MONTHS,
    ) -> None:
        """encryption_key: its policy has to admit the log group. retention: default 90 days."""
        super().__init__(scope, construct_id)
        self.log_group = logs.LogGroup(
            self,
            "LogGroup",
            log_group_name=log_group_name(endpoint_name),
            encryption_key=encryption_key,
            retention=retention,
            removal_policy=RemovalPolicy.DESTROY,
        )
