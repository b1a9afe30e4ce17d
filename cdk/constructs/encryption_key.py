"""The customer key of one stack's messages and logs."""

from __future__ import annotations

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from ..permissions import allow


class EncryptionKey(Construct):
    """A rotated customer key that CloudWatch Logs, and CloudWatch alarms where wanted, may use.

    It goes with its stack: what it encrypts goes too. keep: logs that stay need it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        description: str,
        log_group_name: str,
        for_alarms: bool = False,
        keep: bool = False,
    ) -> None:
        """log_group_name: the only log group that may be encrypted with the key. for_alarms: let alarms use it.

        Alarms cannot publish to a topic under alias/aws/sns: the policy of that key cannot be changed
        (https://repost.aws/knowledge-center/cloudwatch-configure-alarm-sns).
        """
        super().__init__(scope, construct_id)
        self.key = kms.Key(
            self,
            "Key",
            description=description,
            enable_key_rotation=True,
            removal_policy=RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if keep else RemovalPolicy.DESTROY,
        )
        if for_alarms:
            # No condition on the account: the topic's own policy already lets only this account's alarms publish.
            self.key.add_to_resource_policy(
                allow("AlarmsPublish", ["kms:Decrypt", "kms:GenerateDataKey"], "*", "cloudwatch.amazonaws.com")
            )
        self.key.add_to_resource_policy(self._logs_encrypt(log_group_name))

    def _logs_encrypt(self, log_group_name: str) -> iam.PolicyStatement:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html"""
        stack = Stack.of(self)
        group = f"arn:{Aws.PARTITION}:logs:{stack.region}:{stack.account}:log-group:{log_group_name}"
        actions = ["Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey"]
        actions += ["GenerateDataKeyWithoutPlaintext", "DescribeKey"]
        return allow(
            "LogsEncrypt",
            [f"kms:{action}" for action in actions],
            "*",
            f"logs.{stack.region}.amazonaws.com",
            ArnEquals={"kms:EncryptionContext:aws:logs:arn": group},
        )
