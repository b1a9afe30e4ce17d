"""CloudWatch's operations that differ from moto's: percentiles, metric math, composite alarms, evaluated states.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/Welcome.html
"""

from __future__ import annotations

from typing import Any

from moto.cloudwatch.models import Alarm
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult, EmptyResult

from ..context import WithContext
from ..errors import AwsError, ValidationError
from ..monitoring.alarms import COMPARISONS, LOCK, QUERIES, check_rule, evaluate_all
from ..monitoring.queries import check, evaluate
from ..monitoring.series import check_statistic, matching, points


class CloudWatch(WithContext, CloudWatchResponse):
    """One request to CloudWatch."""

    # -- metrics --------------------------------------------------------------------------------------------------

    def get_metric_data(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html"""
        queries, start, end = self.params["MetricDataQueries"], self.params["StartTime"], self.params["EndTime"]
        if start >= end:
            raise ValidationError("The parameter StartTime must be less than the parameter EndTime.")
        _checked(queries)
        newest_first = self.params.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        results = []
        for query in queries:
            if query.get("ReturnData", True):
                found = evaluate(self.cloudwatch_backend, query, queries, start, end)
                moments = sorted(found, reverse=newest_first)
                row = {"Id": query["Id"], "Label": _label(query), "StatusCode": "Complete"}
                results.append({**row, "Timestamps": moments, "Values": [found[moment] for moment in moments]})
        return ActionResult({"MetricDataResults": results})

    def get_metric_statistics(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html"""
        params = self.params
        simple, extended = params.get("Statistics") or [], params.get("ExtendedStatistics") or []
        if not simple and not extended:
            raise AwsError("InvalidParameterCombination", "Must specify either Statistics or ExtendedStatistics")
        if params["StartTime"] >= params["EndTime"]:
            raise AwsError("InvalidParameterValue", "The parameter StartTime must be less than the parameter EndTime.")
        dimensions = [(item["Name"], item["Value"]) for item in params.get("Dimensions") or []]
        data = matching(
            self.cloudwatch_backend, params["Namespace"], params["MetricName"], dimensions, params.get("Unit")
        )
        rows: dict[Any, dict[str, Any]] = {}
        for stat in [*simple, *extended]:
            found = points(data, params["StartTime"], params["EndTime"], int(params["Period"]), stat)
            for moment, value in found.items():
                row = rows.setdefault(moment, {"Timestamp": moment, "Unit": data[0].unit or "None"})
                if stat in simple:
                    row[stat] = value
                else:
                    row.setdefault("ExtendedStatistics", {})[stat] = value
        return ActionResult({"Label": params["MetricName"], "Datapoints": [rows[moment] for moment in sorted(rows)]})

    # -- dashboards -----------------------------------------------------------------------------------------------

    def put_dashboard(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html, with its tags"""
        answer = super().put_dashboard()
        if self.params.get("Tags"):
            backend = self.cloudwatch_backend
            backend.tagger.tag_resource(backend.dashboards[self.params["DashboardName"]].arn, self.params["Tags"])
        return answer

    def tag_resource(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_TagResource.html, dashboards too"""
        arn, backend = self.params["ResourceARN"], self.cloudwatch_backend
        if arn in {dashboard.arn for dashboard in backend.dashboards.values()}:
            backend.tagger.tag_resource(arn, self.params["Tags"])
            return EmptyResult()
        return super().tag_resource()

    # -- alarms ---------------------------------------------------------------------------------------------------

    def put_metric_alarm(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html

        An alarm that could not be evaluated here (unknown math, anomaly detection) is refused.
        """
        params = self.params
        queries = params.get("Metrics") or []
        if params.get("ComparisonOperator") not in COMPARISONS:
            raise ValidationError(f"the embedded AWS cannot compare with {params.get('ComparisonOperator')}")
        if params.get("Threshold") is None:
            raise ValidationError("the embedded AWS needs a Threshold: it has no anomaly detection")
        if queries:
            _checked(queries)
            if sum(query.get("ReturnData", True) for query in queries) != 1:
                raise ValidationError("Exactly one element of the metrics list should return data.")
        elif not params.get("MetricName"):
            raise ValidationError("an alarm needs a MetricName or Metrics")
        else:
            stat = str(params.get("ExtendedStatistic") or params.get("Statistic"))
            check_statistic(stat)
            metric = {key: params.get(key) for key in ("Namespace", "MetricName", "Dimensions")}
            asked = {"Metric": metric, "Period": params.get("Period"), "Stat": stat, "Unit": params.get("Unit")}
            queries = [{"Id": "m", "MetricStat": asked}]
        return self._keep(params["AlarmName"], queries)

    def put_composite_alarm(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html"""
        params = self.params
        for key in ("ActionsSuppressor", "ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod"):
            if params.get(key) is not None:
                raise ValidationError(f"the embedded AWS does not honour {key} of a composite alarm")
        check_rule(self.cloudwatch_backend, params["AlarmRule"])
        return self._keep(params["AlarmName"], [])

    def _keep(self, name: str, queries: list[dict[str, Any]]) -> ActionResult:
        """Put an alarm: a new one begins with INSUFFICIENT_DATA, a changed one keeps its state and history."""
        alarms = self.cloudwatch_backend.alarms
        with LOCK:
            before = alarms.get(name)
            super().put_metric_alarm()
            after = alarms[name]
            vars(after)[QUERIES] = queries
            after.history = [] if before is None else before.history
            after.state_value = "INSUFFICIENT_DATA" if before is None else before.state_value
            if before is not None:
                after.state_reason, after.state_updated_timestamp = before.state_reason, before.state_updated_timestamp
        return EmptyResult()

    def describe_alarms(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html

        The alarms are evaluated first, so that the answer is never older than the data.
        """
        evaluate_all(self.cloudwatch_backend, self.host.clients)
        params = self.params
        kinds = params.get("AlarmTypes") or ["MetricAlarm"]
        found = [alarm for alarm in list(self.cloudwatch_backend.alarms.values()) if _wanted(alarm, params)]
        metric = [alarm for alarm in found if alarm.rule is None and "MetricAlarm" in kinds]
        composite = [alarm for alarm in found if alarm.rule is not None and "CompositeAlarm" in kinds]
        return ActionResult({"MetricAlarms": metric, "CompositeAlarms": composite})

    def delete_alarms(self) -> ActionResult:
        """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DeleteAlarms.html"""
        missing = [name for name in self.params["AlarmNames"] if name not in self.cloudwatch_backend.alarms]
        if missing:
            raise AwsError("ResourceNotFound", f"alarms {', '.join(missing)} do not exist")
        return super().delete_alarms()


def _checked(queries: list[dict[str, Any]]) -> None:
    for query in queries:
        if not query.get("MetricStat") and not query.get("Expression"):
            raise ValidationError(f"metric data query {query['Id']} needs a MetricStat or an Expression")
    check(queries)


def _label(query: dict[str, Any]) -> str:
    stat = query.get("MetricStat")
    default = f"{stat['Metric']['MetricName']} {stat['Stat']}" if stat else query["Id"]
    return str(query.get("Label") or default)


def _wanted(alarm: Alarm, params: dict[str, Any]) -> bool:
    names, prefix = params.get("AlarmNames"), params.get("AlarmNamePrefix") or ""
    action = params.get("ActionPrefix") or ""
    return (
        (not names or alarm.name in names)
        and alarm.name.startswith(prefix)
        and params.get("StateValue") in (None, alarm.state_value)
        and (not action or any(arn.startswith(action) for arn in alarm.alarm_actions or []))
    )
