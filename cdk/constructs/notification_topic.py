"""The topic that an endpoint's alarms, or its compile runs, publish to, and who receives what is published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from ..permissions import allow, only_from


class NotificationTopic(Construct):
    """An encrypted topic, or the one that endpoints share, and the other topics that the spec names.

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
        shared: sns.ITopic | None = None,
    ) -> None:
        """display_name: the sender in e-mails. notify: the spec's alarms.notify, addresses and topics.

        encryption_key: of the topic. shared: a topic that is there, with its subscriptions.
        """
        super().__init__(scope, construct_id)
        self._key = encryption_key
        others = [receiver for receiver in notify if receiver.startswith("arn:")]
        self.topic = shared or self._own(display_name, [receiver for receiver in notify if receiver not in others])
        self.arns = [self.topic.topic_arn, *others]

    def _own(self, display_name: str, addresses: Sequence[str]) -> sns.Topic:
        topic = sns.Topic(self, "Topic", display_name=display_name, master_key=self._key, enforce_ssl=True)
        for address in addresses:
            topic.add_subscription(subscriptions.EmailSubscription(address))
        return topic

    def admit(self, *, alarms: str, rules: str) -> None:
        """Let alarms and rules of this account, whose names match a pattern, publish to a topic of this stack's own.

        The topic's key has to admit cloudwatch.amazonaws.com and events.amazonaws.com. A generated name begins with its
        stack's; a rule's has 64 characters at most, so that of a long one only the beginning is there.
        """
        arn = self.topic.topic_arn
        # https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html and
        # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-conditions.html
        senders = (("AlarmsPublish", "cloudwatch", f"alarm:{alarms}"), ("EventsPublish", "events", f"rule/{rules}"))
        for sid, service, names in senders:
            only = only_from(self, service, names)
            self.topic.add_to_resource_policy(allow(sid, "sns:Publish", arn, f"{service}.amazonaws.com", **only))

    def notified_by(self, alarms: Iterable[cloudwatch.Alarm]) -> None:
        """Have these alarms publish when they ring and when they are over."""
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
