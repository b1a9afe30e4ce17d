"""The topic that an endpoint's alarms publish to, and who hears of it."""

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


class AlarmTopic(Construct):
    """An encrypted topic that this account's alarms, and nobody else, may publish to.

    An e-mail address in `notify` becomes a subscription, which its owner has to confirm. The ARN of another topic
    becomes a second action of every alarm, since a topic cannot subscribe to a topic.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        endpoint_name: str,
        encryption_key: kms.IKey,
        notify: Sequence[str] = (),
    ) -> None:
        """encryption_key: its policy has to admit cloudwatch.amazonaws.com. notify: default nobody."""
        super().__init__(scope, construct_id)
        self.topic = sns.Topic(
            self,
            "Topic",
            display_name=f"Alarms of endpoint {endpoint_name}",
            master_key=encryption_key,
            enforce_ssl=True,
        )
        self.topic.add_to_resource_policy(self._alarms_publish())
        self._other_topics: list[sns.ITopic] = []
        for receiver in notify:
            self._add(receiver)

    def _alarms_publish(self) -> iam.PolicyStatement:
        # https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
        stack = Stack.of(self)
        alarms = f"arn:{Aws.PARTITION}:cloudwatch:{stack.region}:{stack.account}:alarm:*"
        return iam.PolicyStatement(
            sid="AlarmsPublish",
            principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
            actions=["sns:Publish"],
            resources=[self.topic.topic_arn],
            conditions={"ArnLike": {"aws:SourceArn": alarms}},
        )

    def _add(self, receiver: str) -> None:
        if receiver.startswith("arn:"):
            number = len(self._other_topics)
            self._other_topics.append(sns.Topic.from_topic_arn(self, f"Notified{number}", receiver))
        else:
            self.topic.add_subscription(subscriptions.EmailSubscription(receiver))

    def listen_to(self, alarm: cloudwatch.Alarm) -> None:
        """Publish when the alarm rings and when it is over."""
        for topic in (self.topic, *self._other_topics):
            action = actions.SnsAction(topic)
            alarm.add_alarm_action(action)
            alarm.add_ok_action(action)
