"""The log group that the state machines of a compile stack write their steps to."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct


def run_log_group(endpoint_name: str) -> str:
    """Below /aws/vendedlogs/, so that it adds nothing to the account's policy for log deliveries, which has a size.

    https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html
    """
    return f"/aws/vendedlogs/states/InferentiaCompile-{endpoint_name}"


class RunLogs(Construct):
    """Encrypted, kept for 90 days, deleted with its stack: its fixed name would stand in the way of the next one."""

    def __init__(self, scope: Construct, construct_id: str, *, endpoint_name: str, encryption_key: kms.IKey) -> None:
        """encryption_key: its policy has to admit the log group."""
        super().__init__(scope, construct_id)
        self.log_group = logs.LogGroup(
            self,
            "LogGroup",
            log_group_name=run_log_group(endpoint_name),
            encryption_key=encryption_key,
            retention=logs.RetentionDays.THREE_MONTHS,
            removal_policy=RemovalPolicy.DESTROY,
        )
