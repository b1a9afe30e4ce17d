"""The customer key of one endpoint's messages and logs."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct


class EncryptionKey(Construct):
    """A rotated customer key that CloudWatch alarms and CloudWatch Logs may use.

    Alarms cannot publish to a topic under alias/aws/sns: the policy of that key cannot be changed
    (https://repost.aws/knowledge-center/cloudwatch-configure-alarm-sns).
    """

    def __init__(self, scope: Construct, construct_id: str, *, endpoint_name: str, log_group_name: str) -> None:
        """log_group_name: the only log group that may be encrypted with the key."""
        super().__init__(scope, construct_id)
        self.key = kms.Key(
            self,
            "Key",
            description=f"Encrypts the alarm messages and the logs of endpoint {endpoint_name}",
            enable_key_rotation=True,
            # It goes with the topic and the log group, the only things that it encrypts.
            removal_policy=RemovalPolicy.DESTROY,
        )
        # No condition on the account: the topic's own policy already lets only this account's alarms publish.
        self.key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsPublish",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
            )
        )
        self.key.add_to_resource_policy(logs_may_encrypt(self, [log_group_name]))


def logs_may_encrypt(scope: Construct, log_group_names: Sequence[str]) -> iam.PolicyStatement:
    """For a key's policy: CloudWatch Logs may use the key for these log groups of the stack, and for no others.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    stack = Stack.of(scope)
    groups = f"arn:{Aws.PARTITION}:logs:{stack.region}:{stack.account}:log-group:"
    arns = [f"{groups}{name}" for name in log_group_names]
    return iam.PolicyStatement(
        sid="LogsEncrypt",
        principals=[iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com")],
        actions=[
            "kms:Encrypt",
            "kms:Decrypt",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
            "kms:GenerateDataKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:DescribeKey",
        ],
        resources=["*"],
        conditions={"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": arns if len(arns) > 1 else arns[0]}},
    )
