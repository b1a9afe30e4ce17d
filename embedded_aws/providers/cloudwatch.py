"""CloudWatch types.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_CloudWatch.html
"""

# ruff: noqa: ARG001 - create, change and delete have one signature each for all types
from __future__ import annotations

from functools import partial

from .resource import (
    Context,
    Created,
    Properties,
    ResourceType,
    Tagging,
    deleting,
    document,
    names,
    refuse_existing,
)

_BOTH = names("ActionsEnabled AlarmActions AlarmDescription AlarmName InsufficientDataActions OKActions Tags")
_ALARM = _BOTH | names(
    "ComparisonOperator DatapointsToAlarm Dimensions EvaluateLowSampleCountPercentile EvaluationPeriods "
    "ExtendedStatistic MetricName Metrics Namespace Period Statistic Threshold TreatMissingData Unit"
)


def _create_alarm(operation: str, context: Context, properties: Properties) -> Created:
    name = properties.get("AlarmName") or context.name(255)
    kinds = ["MetricAlarm", "CompositeAlarm"]
    refuse_existing(context, name, "cloudwatch", "describe_alarms", AlarmNames=[name], AlarmTypes=kinds)
    _put_alarm(operation, context, name, {}, properties)
    return Created(name, {"Arn": context.arn("cloudwatch", f"alarm:{name}")})


def _put_alarm(operation: str, context: Context, name: str, old: Properties, new: Properties) -> None:
    context.call("cloudwatch", operation, **{**new, "AlarmName": name})


def _create_dashboard(context: Context, properties: Properties) -> Created:
    name = properties.get("DashboardName") or context.name(255)
    refuse_existing(context, name, "cloudwatch", "get_dashboard", DashboardName=name)
    return _put_dashboard(context, name, {}, properties)


def _put_dashboard(context: Context, name: str, old: Properties, new: Properties) -> Created:
    body = document(new["DashboardBody"])
    context.call("cloudwatch", "put_dashboard", DashboardName=name, DashboardBody=body, Tags=new.get("Tags"))
    return Created(name, arn=context.arn("cloudwatch", f"dashboard/{name}", ""))


def _alarm(name: str, properties: frozenset[str], operation: str) -> ResourceType:
    return ResourceType(
        name,
        properties,
        partial(_create_alarm, operation),
        deleting("cloudwatch", "delete_alarms", "AlarmNames", lambda alarm: [alarm]),
        partial(_put_alarm, operation),
        Tagging("cloudwatch", lambda made: {"ResourceARN": made.attributes["Arn"]}),
    )


TYPES = [
    _alarm("AWS::CloudWatch::Alarm", _ALARM, "put_metric_alarm"),
    _alarm("AWS::CloudWatch::CompositeAlarm", _BOTH | {"AlarmRule"}, "put_composite_alarm"),
    ResourceType(
        "AWS::CloudWatch::Dashboard",
        names("DashboardName DashboardBody Tags"),
        _create_dashboard,
        deleting("cloudwatch", "delete_dashboards", "DashboardNames", lambda dashboard: [dashboard]),
        _put_dashboard,
        Tagging("cloudwatch", lambda made: {"ResourceARN": made.arn}),
    ),
]
