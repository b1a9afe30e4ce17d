"""SNS types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SNS.html
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from typing import Any

from .resource import (
    Context,
    Created,
    Properties,
    ResourceType,
    Tagging,
    deleting,
    difference,
    document,
    gone,
    names,
    picked,
    refuse_existing,
)

_TOPIC = names("DisplayName KmsMasterKeyId FifoTopic ContentBasedDeduplication SignatureVersion TracingConfig")
_SUBSCRIPTION = names(
    "DeliveryPolicy FilterPolicy FilterPolicyScope RawMessageDelivery RedrivePolicy SubscriptionRoleArn"
)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(document(value))


def _attributes(properties: Properties, known: frozenset[str]) -> dict[str, str] | None:
    return {key: _text(value) for key, value in properties.items() if key in known} or None


def _set_attributes(
    context: Context, operation: str, arn: dict[str, str], known: frozenset[str], old: Properties, new: Properties
) -> None:
    for key in sorted(known):
        if old.get(key) != new.get(key):
            context.call("sns", operation, **arn, AttributeName=key, AttributeValue=_text(new.get(key, "")))


def _create_topic(context: Context, properties: Properties) -> Created:
    name = properties.get("TopicName") or context.name(256)
    refuse_existing(context, name, "sns", "get_topic_attributes", TopicArn=context.arn("sns", name))
    attributes, tags = _attributes(properties, _TOPIC), properties.get("Tags")
    arn = context.call("sns", "create_topic", Name=name, Attributes=attributes, Tags=tags)["TopicArn"]
    _set_receivers(context, arn, {}, properties)
    return Created(arn, {"TopicArn": arn, "TopicName": name})


def _set_receivers(context: Context, arn: str, old: Properties, new: Properties) -> None:
    before, after = (
        {(item["Protocol"], item["Endpoint"]) for item in side.get("Subscription", [])} for side in (old, new)
    )
    added, removed = difference(before, after)
    for protocol, endpoint in added:
        context.call("sns", "subscribe", TopicArn=arn, Protocol=protocol, Endpoint=endpoint)
    for item in context.call("sns", "list_subscriptions_by_topic", TopicArn=arn)["Subscriptions"]:
        if (item["Protocol"], item["Endpoint"]) in removed:
            context.call("sns", "unsubscribe", SubscriptionArn=item["SubscriptionArn"])


def _change_topic(context: Context, arn: str, old: Properties, new: Properties) -> None:
    _set_attributes(context, "set_topic_attributes", {"TopicArn": arn}, _TOPIC, old, new)
    _set_receivers(context, arn, old, new)


def _create_policy(context: Context, properties: Properties) -> Created:
    _put_policy(context, "", {}, properties)
    return Created(context.name(128))


def _put_policy(context: Context, physical_id: str, old: Properties, new: Properties) -> None:
    body = document(new["PolicyDocument"])
    for arn in new["Topics"]:
        context.call("sns", "set_topic_attributes", TopicArn=arn, AttributeName="Policy", AttributeValue=body)


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
    given = picked(properties, ("TopicArn", "Protocol", "Endpoint"))
    attributes = _attributes(properties, _SUBSCRIPTION)
    arn = context.call("sns", "subscribe", Attributes=attributes, ReturnSubscriptionArn=True, **given)
    return Created(arn["SubscriptionArn"], {"Arn": arn["SubscriptionArn"]})


def _change_subscription(context: Context, arn: str, old: Properties, new: Properties) -> None:
    _set_attributes(context, "set_subscription_attributes", {"SubscriptionArn": arn}, _SUBSCRIPTION, old, new)


TYPES = [
    ResourceType(
        "AWS::SNS::Topic",
        _TOPIC | {"TopicName", "Subscription", "Tags"},
        _create_topic,
        deleting("sns", "delete_topic", "TopicArn"),
        _change_topic,
        Tagging("sns", lambda made: {"ResourceArn": made.physical_id}),
    ),
    ResourceType("AWS::SNS::TopicPolicy", names("PolicyDocument Topics"), _create_policy, _delete_policy, _put_policy),
    ResourceType(
        "AWS::SNS::Subscription",
        _SUBSCRIPTION | {"TopicArn", "Protocol", "Endpoint"},
        _create_subscription,
        deleting("sns", "unsubscribe", "SubscriptionArn"),
        _change_subscription,
    ),
]
