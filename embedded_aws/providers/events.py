"""EventBridge types: rules on the default bus whose targets are state machines or topics.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-events-rule.html
"""

from __future__ import annotations

from typing import Any

from .resource import (
    Context,
    Created,
    Properties,
    ProviderError,
    ResourceType,
    Tagging,
    document,
    gone,
    names,
    picked,
    refuse_existing,
)

_TARGET = names("Arn Id Input InputPath InputTransformer RoleArn")


def _targets(properties: Properties) -> list[dict[str, Any]]:
    """The targets; an event that could not be delivered here is refused now."""
    for target in properties.get("Targets") or []:
        unknown = sorted(set(target) - _TARGET)
        if unknown:
            raise ProviderError(f"the embedded AWS does not honour {', '.join(unknown)} of a rule's target")
        if str(target["Arn"]).split(":")[2] not in {"states", "sns"}:
            raise ProviderError(
                f"the embedded AWS delivers events to state machines and topics, not to {target['Arn']}"
            )
    return list(properties.get("Targets") or [])


def _put(context: Context, name: str, properties: Properties) -> Created:
    targets, pattern = _targets(properties), document(properties.get("EventPattern"))
    given = picked(properties, ("State", "Description", "Tags"))
    arn = context.call("events", "put_rule", Name=name, EventPattern=pattern, **given)["RuleArn"]
    if targets:
        context.call("events", "put_targets", Rule=name, Targets=targets)
    return Created(name, {"Arn": arn})


def _create(context: Context, properties: Properties) -> Created:
    name = properties.get("Name") or context.name(64)
    refuse_existing(context, name, "events", "describe_rule", Name=name)
    return _put(context, name, properties)


def _remove_targets(context: Context, name: str, old: Properties, new: Properties) -> None:
    kept = {target["Id"] for target in new.get("Targets") or []}
    removed = [target["Id"] for target in old.get("Targets") or [] if target["Id"] not in kept]
    if removed:
        gone(context, "events", "remove_targets", Rule=name, Ids=removed)


def _change(context: Context, name: str, old: Properties, new: Properties) -> Created:
    _remove_targets(context, name, old, new)
    return _put(context, name, new)


def _delete(context: Context, name: str, properties: Properties) -> None:
    _remove_targets(context, name, properties, {})
    gone(context, "events", "delete_rule", Name=name)


TYPES = [
    ResourceType(
        "AWS::Events::Rule",
        names("Description EventPattern Name State Tags Targets"),
        _create,
        _delete,
        _change,
        Tagging("events", lambda made: {"ResourceARN": made.attributes["Arn"]}),
    )
]
