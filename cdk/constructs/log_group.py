"""The log groups of the stacks: what an endpoint's containers write, and what the machines of compile runs write."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from endpoint_spec import EndpointSpec


def endpoint_log_group(endpoint_name: str) -> str:
    """SageMaker's fixed name (https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html).

    The stack makes it before the endpoint, because a log group that SageMaker makes itself keeps everything for ever.
    """
    return f"/aws/sagemaker/Endpoints/{endpoint_name}"


def run_log_group(endpoint_name: str) -> str:
    """Below /aws/vendedlogs/, so that it adds nothing to the account's policy for log deliveries, which has a size.

    https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html
    """
    return f"/aws/vendedlogs/states/InferentiaCompile-{endpoint_name}"


def endpoint_logs(
    scope: Construct, construct_id: str, *, spec: EndpointSpec, encryption_key: kms.IKey
) -> logs.ILogGroup:
    """The log group of an endpoint: its stack's own, or one that is there and keeps its retention and its key."""
    name = endpoint_log_group(spec.name)
    if spec.logs.existing:
        return logs.LogGroup.from_log_group_name(scope, construct_id, name)
    return EncryptedLogGroup(
        scope, construct_id, name=name, encryption_key=encryption_key, keep=spec.logs.keep
    ).log_group


class EncryptedLogGroup(Construct):
    """Keeps logs for 90 days; deleted with its stack: its fixed name would stand in the way of the next deployment.

    keep: it stays, and `cdk deploy --import-existing-resources` takes it over, for which CloudFormation demands that
    policy (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/import-resources-automatically.html).
    To read the log of a container that never started, deploy with `cdk deploy --no-rollback`.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, name: str, encryption_key: kms.IKey, keep: bool = False
    ) -> None:
        """encryption_key: its policy has to admit the log group."""
        super().__init__(scope, construct_id)
        self.log_group = logs.LogGroup(
            self,
            "LogGroup",
            log_group_name=name,
            encryption_key=encryption_key,
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if keep else RemovalPolicy.DESTROY,
        )
