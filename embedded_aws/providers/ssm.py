"""Systems Manager types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ssm-parameter.html
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType, Tagging, deleting, names, picked, tag_list

_COPIED = names("Type Value Description AllowedPattern DataType Tier Policies")


def _create(context: Context, properties: Properties) -> Created:
    name = properties.get("Name") or context.name(1011)
    tags = tag_list(properties.get("Tags") or {}) or None
    context.call("ssm", "put_parameter", Name=name, Tags=tags, **picked(properties, _COPIED))
    return Created(name, picked(properties, ("Type", "Value")))


def _change(context: Context, name: str, old: Properties, new: Properties) -> Created:
    context.call("ssm", "put_parameter", Name=name, Overwrite=True, **picked(new, _COPIED))
    return Created(name, picked(new, ("Type", "Value")))


TYPES = [
    ResourceType(
        "AWS::SSM::Parameter",
        _COPIED | {"Name", "Tags"},
        _create,
        deleting("ssm", "delete_parameter", "Name"),
        _change,
        Tagging(
            "ssm",
            lambda made: {"ResourceType": "Parameter", "ResourceId": made.physical_id},
            calls=("add_tags_to_resource", "remove_tags_from_resource"),
        ),
    )
]
