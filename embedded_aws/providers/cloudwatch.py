"""CloudWatch types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_CloudWatch.html
"""

# ruff: noqa: ARG001 - create, update and delete have one signature each for all types
from __future__ import annotations

from .resource import Context, Created, Properties, ResourceType, document, gone, refuse_existing, retag

_ALARM = frozenset(
    {
        "ActionsEnabled",
        "AlarmActions",
        "AlarmDescription",
        "ComparisonOperator",
        "DatapointsToAlarm",
        "Dimensions",
        "EvaluateLowSampleCountPercentile",
        "EvaluationPeriods",
        "ExtendedStatistic",
        "InsufficientDataActions",
        "MetricName",
        "Metrics",
        "Namespace",
        "OKActions",
        "Period",
        "Statistic",
        "Threshold",
        "TreatMissingData",
        "Unit",
    }
)
_COMPOSITE = frozenset(
    {"ActionsEnabled", "AlarmActions", "AlarmDescription", "AlarmRule", "InsufficientDataActions", "OKActions"}
)


def _put(context: Context, operation: str, name: str, properties: Properties, known: frozenset[str]) -> Created:
    given = {key: value for key, value in properties.items() if key in known}
    context.call("cloudwatch", operation, AlarmName=name, Tags=properties.get("Tags"), **given)
    return Created(name, {"Arn": context.arn("cloudwatch", f"alarm:{name}")})


def _new_name(context: Context, properties: Properties) -> str:
    name = properties.get("AlarmName") or context.name(255)
    kinds = ["MetricAlarm", "CompositeAlarm"]
    refuse_existing(context, name, "cloudwatch", "describe_alarms", AlarmNames=[name], AlarmTypes=kinds)
    return str(name)


def _create_alarm(context: Context, properties: Properties) -> Created:
    name = _new_name(context, properties)
    return _put(context, "put_metric_alarm", name, properties, _ALARM)


def _update_alarm(context: Context, name: str, old: Properties, new: Properties) -> Created:
    retag(context, "cloudwatch", old, new, ResourceARN=context.arn("cloudwatch", f"alarm:{name}"))
    return _put(context, "put_metric_alarm", name, {**new, "Tags": None}, _ALARM)


def _create_composite(context: Context, properties: Properties) -> Created:
    name = _new_name(context, properties)
    return _put(context, "put_composite_alarm", name, properties, _COMPOSITE)


def _update_composite(context: Context, name: str, old: Properties, new: Properties) -> Created:
    retag(context, "cloudwatch", old, new, ResourceARN=context.arn("cloudwatch", f"alarm:{name}"))
    return _put(context, "put_composite_alarm", name, {**new, "Tags": None}, _COMPOSITE)


def _delete_alarm(context: Context, name: str, properties: Properties) -> None:
    gone(context, "cloudwatch", "delete_alarms", AlarmNames=[name])


def _create_dashboard(context: Context, properties: Properties) -> Created:
    name = properties.get("DashboardName") or context.name(255)
    refuse_existing(context, name, "cloudwatch", "get_dashboard", DashboardName=name)
    return _put_dashboard(context, name, properties)


def _put_dashboard(context: Context, name: str, properties: Properties) -> Created:
    body = document(properties["DashboardBody"])
    tags = properties.get("Tags")
    context.call("cloudwatch", "put_dashboard", DashboardName=name, DashboardBody=body, Tags=tags)
    return Created(name)


def _update_dashboard(context: Context, name: str, old: Properties, new: Properties) -> Created:
    retag(context, "cloudwatch", old, new, ResourceARN=context.arn("cloudwatch", f"dashboard/{name}", ""))
    return _put_dashboard(context, name, {**new, "Tags": None})


def _delete_dashboard(context: Context, name: str, properties: Properties) -> None:
    gone(context, "cloudwatch", "delete_dashboards", DashboardNames=[name])


TYPES = [
    ResourceType("AWS::CloudWatch::Alarm", _ALARM | {"AlarmName", "Tags"}, _create_alarm, _delete_alarm, _update_alarm),
    ResourceType(
        "AWS::CloudWatch::CompositeAlarm",
        _COMPOSITE | {"AlarmName", "Tags"},
        _create_composite,
        _delete_alarm,
        _update_composite,
    ),
    ResourceType(
        "AWS::CloudWatch::Dashboard",
        frozenset({"DashboardName", "DashboardBody", "Tags"}),
        _create_dashboard,
        _delete_dashboard,
        _update_dashboard,
    ),
]
