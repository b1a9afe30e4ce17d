"""The topic that an endpoint's alarms, or its compile runs, publish to, and who receives what is published."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from ..permissions import allow


class NotificationTopic(Construct):
    """An encrypted topic, and the other topics that the spec names.

    An e-mail address in `notify` becomes a subscription, which its owner has to confirm. The ARN of another topic is
    published to as well, since a topic cannot subscribe to a topic; if a key of yours encrypts it, that has to admit
    the publisher.

    topic: this one. arns: of this one and of the others.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        display_name: str,
        encryption_key: kms.IKey,
        notify: Sequence[str] = (),
    ) -> None:
        """display_name: the sender in e-mails. notify: the spec's alarms.notify, addresses and topics."""
        super().__init__(scope, construct_id)
        self._key = encryption_key
        self.topic = sns.Topic(self, "Topic", display_name=display_name, master_key=encryption_key, enforce_ssl=True)
        others = [receiver for receiver in notify if receiver.startswith("arn:")]
        for receiver in notify:
            if receiver not in others:
                self.topic.add_subscription(subscriptions.EmailSubscription(receiver))
        self.arns = [self.topic.topic_arn, *others]

    def admit_alarms(self, *alarms: cloudwatch.Alarm) -> None:
        """Let this account's alarms publish, and have these do so when they ring and when they are over.

        The topic's key has to admit cloudwatch.amazonaws.com.
        """
        stack = Stack.of(self)
        # https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
        source = {"aws:SourceArn": f"arn:{Aws.PARTITION}:cloudwatch:{stack.region}:{stack.account}:alarm:*"}
        arn, service = self.topic.topic_arn, "cloudwatch.amazonaws.com"
        self.topic.add_to_resource_policy(allow("AlarmsPublish", "sns:Publish", arn, service, ArnLike=source))
        others = (sns.Topic.from_topic_arn(self, f"Notified{i}", arn) for i, arn in enumerate(self.arns[1:]))
        for topic in (self.topic, *others):
            for alarm in alarms:
                alarm.add_alarm_action(actions.SnsAction(topic))
                alarm.add_ok_action(actions.SnsAction(topic))

    def may_publish(self) -> list[iam.PolicyStatement]:
        """What a role needs to publish to all of them."""
        return [
            allow("Notify", "sns:Publish", self.arns),
            # SNS encrypts with the publisher's permissions.
            # https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
            allow("EncryptMessage", ["kms:Decrypt", "kms:GenerateDataKey"], self._key.key_arn),
        ]
