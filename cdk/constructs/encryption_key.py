"""The customer key of one stack's messages and logs."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from ..permissions import allow, only_from


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
        log_groups: Sequence[str],
        for_alarms: str = "",
        keep: bool = False,
    ) -> None:
        """log_groups: names or patterns of the only log groups that may be encrypted with the key. for_alarms: let
        alarms of this name or pattern, and EventBridge's rules, use it.

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
            # Alarms name their source to KMS as well. EventBridge does not, and may be given no such condition; the
            # topic's policy has it. https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
            # #compatibility-with-aws-services, https://github.com/aws/modern-data-architecture-accelerator
            # (grantCloudWatchAlarmsTopicAccess)
            alarms = only_from(self, "cloudwatch", f"alarm:{for_alarms}")
            for sid, service, only in (("AlarmsPublish", "cloudwatch", alarms), ("EventsPublish", "events", {})):
                actions, principal = ["kms:Decrypt", "kms:GenerateDataKey"], f"{service}.amazonaws.com"
                self.key.add_to_resource_policy(allow(sid, actions, "*", principal, **only))
        self.key.add_to_resource_policy(self._logs_encrypt(log_groups))

    def _logs_encrypt(self, log_groups: Sequence[str]) -> iam.PolicyStatement:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html"""
        stack = Stack.of(self)
        logs = f"arn:{Aws.PARTITION}:logs:{stack.region}:{stack.account}:log-group:"
        groups = [f"{logs}{name}" for name in log_groups]
        actions = ["Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey"]
        actions += ["GenerateDataKeyWithoutPlaintext", "DescribeKey"]
        return allow(
            "LogsEncrypt",
            [f"kms:{action}" for action in actions],
            "*",
            f"logs.{stack.region}.amazonaws.com",
            ArnLike={"kms:EncryptionContext:aws:logs:arn": groups if len(groups) > 1 else groups[0]},
        )
