"""KMS types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_KMS.html
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from typing import Any

from .resource import Context, Created, Properties, ResourceType, Tagging, deleting, document, gone, names, picked


def _kms_tags(tags: Any) -> list[dict[str, str]]:
    return [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in tags or []]


def _create_key(context: Context, properties: Properties) -> Created:
    given = picked(properties, ("Description", "KeySpec", "KeyUsage", "MultiRegion"))
    policy, tags = document(properties.get("KeyPolicy")), _kms_tags(properties.get("Tags")) or None
    made = context.call("kms", "create_key", Policy=policy, Tags=tags, **given)["KeyMetadata"]
    _set_state(context, made["KeyId"], {}, properties)
    return Created(made["KeyId"], {"Arn": made["Arn"], "KeyId": made["KeyId"]})


def _set_state(context: Context, key: str, old: Properties, new: Properties) -> None:
    rotation = ("EnableKeyRotation", "RotationPeriodInDays")
    if [old.get(name) for name in rotation] != [new.get(name) for name in rotation]:
        if str(new.get("EnableKeyRotation", False)).lower() == "true":
            period = new.get("RotationPeriodInDays")
            context.call("kms", "enable_key_rotation", KeyId=key, RotationPeriodInDays=period)
        else:
            context.call("kms", "disable_key_rotation", KeyId=key)
    if old.get("Enabled", True) != new.get("Enabled", True):
        enabled = str(new.get("Enabled", True)).lower() == "true"
        context.call("kms", "enable_key" if enabled else "disable_key", KeyId=key)


def _change_key(context: Context, key: str, old: Properties, new: Properties) -> None:
    if old.get("KeyPolicy") != new.get("KeyPolicy"):
        context.call("kms", "put_key_policy", KeyId=key, PolicyName="default", Policy=document(new["KeyPolicy"]))
    if old.get("Description") != new.get("Description"):
        context.call("kms", "update_key_description", KeyId=key, Description=new.get("Description", ""))
    _set_state(context, key, old, new)


def _delete_key(context: Context, key: str, properties: Properties) -> None:
    """CloudFormation schedules the deletion, 30 days ahead unless PendingWindowInDays says otherwise."""
    days = properties.get("PendingWindowInDays", 30)
    gone(context, "kms", "schedule_key_deletion", KeyId=key, PendingWindowInDays=days)


def _create_alias(context: Context, properties: Properties) -> Created:
    context.call("kms", "create_alias", **properties)
    return Created(properties["AliasName"])


def _change_alias(context: Context, name: str, old: Properties, new: Properties) -> None:
    context.call("kms", "update_alias", **new)


TYPES = [
    ResourceType(
        "AWS::KMS::Key",
        names(
            "KeyPolicy Description EnableKeyRotation RotationPeriodInDays PendingWindowInDays Enabled KeySpec KeyUsage "
            "MultiRegion Tags"
        ),
        _create_key,
        _delete_key,
        _change_key,
        Tagging("kms", lambda made: {"KeyId": made.physical_id}, shape=_kms_tags),
        replace=names("KeySpec KeyUsage MultiRegion"),
    ),
    ResourceType(
        "AWS::KMS::Alias",
        names("AliasName TargetKeyId"),
        _create_alias,
        deleting("kms", "delete_alias", "AliasName"),
        _change_alias,
    ),
]
