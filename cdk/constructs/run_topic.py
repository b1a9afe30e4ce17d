"""Who hears of the end of a compile run."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct


class RunTopic(Construct):
    """An encrypted topic that the stack's state machines publish to; e-mail addresses of the spec subscribe to it.

    arns: of this topic and of the topics that the spec names, which are published to as well. A topic of yours under a
    key of yours has to admit the machines; that a message cannot be delivered does not fail a run.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        endpoint_name: str,
        encryption_key: kms.IKey,
        notify: Sequence[str],
    ) -> None:
        """notify: the spec's alarms.notify, addresses and topics."""
        super().__init__(scope, construct_id)
        self._key = encryption_key
        topic = sns.Topic(
            self,
            "Topic",
            display_name=f"Compile runs of endpoint {endpoint_name}",
            master_key=encryption_key,
            enforce_ssl=True,
        )
        for receiver in notify:
            if not receiver.startswith("arn:"):
                topic.add_subscription(subscriptions.EmailSubscription(receiver))
        self.arns = [topic.topic_arn, *(receiver for receiver in notify if receiver.startswith("arn:"))]

    def may_publish(self) -> list[iam.PolicyStatement]:
        """What a role needs to tell them."""
        return [
            iam.PolicyStatement(sid="Tell", actions=["sns:Publish"], resources=self.arns),
            # SNS encrypts with the publisher's permissions.
            # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
            iam.PolicyStatement(
                sid="EncryptMessage", actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[self._key.key_arn]
            ),
        ]
