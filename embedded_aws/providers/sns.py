"""SNS types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SNS.html
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

from typing import Any

from .resource import Context, Created, Properties, ResourceType, document, gone, refuse_existing, retag

_TOPIC_ATTRIBUTES = (
    "DisplayName",
    "KmsMasterKeyId",
    "FifoTopic",
    "ContentBasedDeduplication",
    "SignatureVersion",
    "TracingConfig",
)
_SUBSCRIPTION_ATTRIBUTES = (
    "DeliveryPolicy",
    "FilterPolicy",
    "FilterPolicyScope",
    "RawMessageDelivery",
    "RedrivePolicy",
    "SubscriptionRoleArn",
)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(document(value))


def _described(arn: str) -> Created:
    return Created(arn, {"TopicArn": arn, "TopicName": arn.rsplit(":", 1)[-1]})


def _create_topic(context: Context, properties: Properties) -> Created:
    attributes = {key: _text(properties[key]) for key in _TOPIC_ATTRIBUTES if key in properties}
    name = properties.get("TopicName") or context.name(256)
    refuse_existing(context, name, "sns", "get_topic_attributes", TopicArn=context.arn("sns", name))
    arn = context.call(
        "sns",
        "create_topic",
        Name=name,
        Attributes=attributes or None,
        Tags=properties.get("Tags"),
    )["TopicArn"]
    for item in properties.get("Subscription", []):
        context.call("sns", "subscribe", TopicArn=arn, Protocol=item["Protocol"], Endpoint=item["Endpoint"])
    return _described(arn)


def _update_topic(context: Context, arn: str, old: Properties, new: Properties) -> Created:
    for key in _TOPIC_ATTRIBUTES:
        if old.get(key) != new.get(key):
            context.call(
                "sns", "set_topic_attributes", TopicArn=arn, AttributeName=key, AttributeValue=_text(new.get(key, ""))
            )
    wanted = {(item["Protocol"], item["Endpoint"]) for item in new.get("Subscription", [])}
    present = {(item["Protocol"], item["Endpoint"]) for item in old.get("Subscription", [])}
    for protocol, endpoint in sorted(wanted - present):
        context.call("sns", "subscribe", TopicArn=arn, Protocol=protocol, Endpoint=endpoint)
    for item in context.call("sns", "list_subscriptions_by_topic", TopicArn=arn)["Subscriptions"]:
        if (item["Protocol"], item["Endpoint"]) in present - wanted:
            context.call("sns", "unsubscribe", SubscriptionArn=item["SubscriptionArn"])
    retag(context, "sns", old, new, ResourceArn=arn)
    return _described(arn)


def _delete_topic(context: Context, arn: str, properties: Properties) -> None:
    gone(context, "sns", "delete_topic", TopicArn=arn)


def _put_policy(context: Context, properties: Properties) -> None:
    body = document(properties["PolicyDocument"])
    for arn in properties["Topics"]:
        context.call("sns", "set_topic_attributes", TopicArn=arn, AttributeName="Policy", AttributeValue=body)


def _create_policy(context: Context, properties: Properties) -> Created:
    _put_policy(context, properties)
    return Created(context.name(128))


def _update_policy(context: Context, physical_id: str, old: Properties, new: Properties) -> Created:
    _put_policy(context, new)
    return Created(physical_id)


def _delete_policy(context: Context, physical_id: str, properties: Properties) -> None:
    """The topic falls back to the policy that a topic has by default: only its owner may use it."""
    for arn in properties["Topics"]:
        statement = {
            "Sid": "__default_statement_ID",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": ["SNS:Publish", "SNS:Subscribe", "SNS:GetTopicAttributes"],
            "Resource": arn,
            "Condition": {"StringEquals": {"AWS:SourceOwner": context.account}},
        }
        body = document({"Version": "2008-10-17", "Statement": [statement]})
        gone(context, "sns", "set_topic_attributes", TopicArn=arn, AttributeName="Policy", AttributeValue=body)


def _create_subscription(context: Context, properties: Properties) -> Created:
    attributes = {key: _text(properties[key]) for key in _SUBSCRIPTION_ATTRIBUTES if key in properties}
    arn = context.call(
        "sns",
        "subscribe",
        TopicArn=properties["TopicArn"],
        Protocol=properties["Protocol"],
        Endpoint=properties.get("Endpoint"),
        Attributes=attributes or None,
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    return Created(arn, {"Arn": arn})


def _update_subscription(context: Context, arn: str, old: Properties, new: Properties) -> Created:
    for key in _SUBSCRIPTION_ATTRIBUTES:
        if old.get(key) != new.get(key):
            value = _text(new.get(key, ""))
            context.call(
                "sns", "set_subscription_attributes", SubscriptionArn=arn, AttributeName=key, AttributeValue=value
            )
    return Created(arn, {"Arn": arn})


def _delete_subscription(context: Context, arn: str, properties: Properties) -> None:
    gone(context, "sns", "unsubscribe", SubscriptionArn=arn)


TYPES = [
    ResourceType(
        "AWS::SNS::Topic",
        frozenset({"TopicName", "Subscription", "Tags", *_TOPIC_ATTRIBUTES}),
        _create_topic,
        _delete_topic,
        _update_topic,
    ),
    ResourceType(
        "AWS::SNS::TopicPolicy", frozenset({"PolicyDocument", "Topics"}), _create_policy, _delete_policy, _update_policy
    ),
    ResourceType(
        "AWS::SNS::Subscription",
        frozenset({"TopicArn", "Protocol", "Endpoint", *_SUBSCRIPTION_ATTRIBUTES}),
        _create_subscription,
        _delete_subscription,
        _update_subscription,
    ),
]
