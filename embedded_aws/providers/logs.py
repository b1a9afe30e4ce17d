"""CloudWatch Logs types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-logs-loggroup.html
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType, gone, retag, tag_map


def _described(context: Context, name: str) -> Created:
    return Created(name, {"Arn": context.arn("logs", f"log-group:{name}:*")})


def _create_group(context: Context, properties: Properties) -> Created:
    name = properties.get("LogGroupName") or context.name(512)
    context.call(
        "logs",
        "create_log_group",
        logGroupName=name,
        kmsKeyId=properties.get("KmsKeyId"),
        logGroupClass=properties.get("LogGroupClass"),
        tags=tag_map(properties.get("Tags")),
    )
    _set_retention(context, name, properties)
    return _described(context, name)


def _set_retention(context: Context, name: str, properties: Properties) -> None:
    if "RetentionInDays" in properties:
        days = properties["RetentionInDays"]
        context.call("logs", "put_retention_policy", logGroupName=name, retentionInDays=days)
    else:
        context.call("logs", "delete_retention_policy", logGroupName=name)


def _update_group(context: Context, name: str, old: Properties, new: Properties) -> Created:
    if old.get("RetentionInDays") != new.get("RetentionInDays"):
        _set_retention(context, name, new)
    if old.get("KmsKeyId") != new.get("KmsKeyId"):
        if "KmsKeyId" in new:
            context.call("logs", "associate_kms_key", logGroupName=name, kmsKeyId=new["KmsKeyId"])
        else:
            context.call("logs", "disassociate_kms_key", logGroupName=name)
    calls, members = ("tag_log_group", "untag_log_group"), ("tags", "tags")
    retag(context, "logs", old, new, calls=calls, members=members, shape=tag_map, logGroupName=name)
    return _described(context, name)


def _delete_group(context: Context, name: str, properties: Properties) -> None:
    gone(context, "logs", "delete_log_group", logGroupName=name)


TYPES = [
    ResourceType(
        "AWS::Logs::LogGroup",
        frozenset({"LogGroupName", "RetentionInDays", "KmsKeyId", "LogGroupClass", "Tags"}),
        _create_group,
        _delete_group,
        _update_group,
    )
]
