"""CloudWatch Logs types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-logs-loggroup.html
"""

from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType, Tagging, deleting, names, tag_map


def _create_group(context: Context, properties: Properties) -> Created:
    name = properties.get("LogGroupName") or context.name(512)
    context.call(
        "logs",
        "create_log_group",
        logGroupName=name,
        kmsKeyId=properties.get("KmsKeyId"),
        logGroupClass=properties.get("LogGroupClass"),
        tags=tag_map(properties.get("Tags")) or None,
    )
    _set_retention(context, name, properties)
    return _created(context, name)


def _created(context: Context, name: str) -> Created:
    return Created(name, {"Arn": context.arn("logs", f"log-group:{name}:*")})


def _find_group(context: Context, name: str) -> Created | None:
    found = context.call("logs", "describe_log_groups", logGroupNamePrefix=name)["logGroups"]
    return _created(context, name) if name in {group["logGroupName"] for group in found} else None


def _set_retention(context: Context, name: str, properties: Properties) -> None:
    if "RetentionInDays" in properties:
        days = properties["RetentionInDays"]
        context.call("logs", "put_retention_policy", logGroupName=name, retentionInDays=days)
    else:
        context.call("logs", "delete_retention_policy", logGroupName=name)


def _change_group(context: Context, name: str, old: Properties, new: Properties) -> None:
    if old.get("RetentionInDays") != new.get("RetentionInDays"):
        _set_retention(context, name, new)
    if old.get("KmsKeyId") != new.get("KmsKeyId"):
        if "KmsKeyId" in new:
            context.call("logs", "associate_kms_key", logGroupName=name, kmsKeyId=new["KmsKeyId"])
        else:
            context.call("logs", "disassociate_kms_key", logGroupName=name)


TYPES = [
    ResourceType(
        "AWS::Logs::LogGroup",
        names("LogGroupName RetentionInDays KmsKeyId LogGroupClass Tags"),
        _create_group,
        deleting("logs", "delete_log_group", "logGroupName"),
        _change_group,
        Tagging(
            "logs",
            lambda made: {"logGroupName": made.physical_id},
            calls=("tag_log_group", "untag_log_group"),
            members=("tags", "tags"),
            shape=tag_map,
        ),
        find=_find_group,
    )
]
