"""Systems Manager types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ssm-parameter.html
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType, gone

_COPIED = ("Type", "Value", "Description", "AllowedPattern", "DataType", "Tier", "Policies")


def _described(name: str, properties: Properties) -> Created:
    return Created(name, {"Type": properties["Type"], "Value": properties["Value"]})


def _create(context: Context, properties: Properties) -> Created:
    name = properties.get("Name") or context.name(1011)
    tags = [{"Key": key, "Value": value} for key, value in (properties.get("Tags") or {}).items()]
    given = {key: properties.get(key) for key in _COPIED}
    context.call("ssm", "put_parameter", Name=name, Tags=tags or None, **given)
    return _described(name, properties)


def _update(context: Context, name: str, old: Properties, new: Properties) -> Created:
    given = {key: new.get(key) for key in _COPIED}
    context.call("ssm", "put_parameter", Name=name, Overwrite=True, **given)
    before, after = old.get("Tags") or {}, new.get("Tags") or {}
    where = {"ResourceType": "Parameter", "ResourceId": name}
    added = [{"Key": key, "Value": value} for key, value in after.items() if before.get(key) != value]
    if added:
        context.call("ssm", "add_tags_to_resource", Tags=added, **where)
    removed = [key for key in before if key not in after]
    if removed:
        context.call("ssm", "remove_tags_from_resource", TagKeys=removed, **where)
    return _described(name, new)


def _delete(context: Context, name: str, properties: Properties) -> None:
    gone(context, "ssm", "delete_parameter", Name=name)


TYPES = [ResourceType("AWS::SSM::Parameter", frozenset({"Name", "Tags", *_COPIED}), _create, _delete, _update)]
