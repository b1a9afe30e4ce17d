"""The alarms of an endpoint: too slow, failing, and its instances' memory and disk filling up."""

from __future__ import annotations

from datetime import timedelta

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from endpoint_spec.endpoint import Alarms

from .metrics import EndpointMetrics

# Three bad minutes of five: one outlier is no alarm, a lasting fault is one after three minutes.
EVALUATION_PERIODS = 5
DATAPOINTS_TO_ALARM = 3


class EndpointAlarms(Construct):
    """latency: p99 of the model's latency. error_rate: server errors, memory, disk: in per cent. all: these four.

    Minutes without data are not breaching: an endpoint without requests is neither slow nor failing. Each description
    ends with the place of the runbook that says what to do.
    """

    def __init__(self, scope: Construct, construct_id: str, *, metrics: EndpointMetrics, alarms: Alarms) -> None:
        """alarms: the spec's section. Fewer than min_requests requests in a minute ring neither of the first two."""
        super().__init__(scope, construct_id)
        self._endpoint, self._runbook = metrics.endpoint_name, alarms.runbook
        milliseconds = alarms.p99_latency / timedelta(milliseconds=1)
        percent, few = alarms.error_rate * 100, alarms.min_requests
        quiet = f"minutes with fewer than {few} requests do not count"
        self.latency = self._alarm(
            "Latency",
            metric=metrics.judged_latency(min_requests=few),
            threshold=alarms.p99_latency / timedelta(microseconds=1),
            description=f"p99 of the model's latency is above {milliseconds:g} ms ({quiet})",
            place="latency",
        )
        self.error_rate = self._alarm(
            "ErrorRate",
            metric=metrics.error_percentage(min_requests=few),
            threshold=percent,
            description=f"more than {percent:g} % of the requests of a minute failed (5xx; {quiet})",
            place="errors",
        )
        self.memory = self._alarm(
            "Memory",
            metric=metrics.memory(),
            threshold=alarms.memory * 100,
            description=f"an instance uses more than {alarms.memory * 100:g} % of its memory",
            place="memory",
        )
        self.disk = self._alarm(
            "Disk",
            metric=metrics.disk(),
            threshold=alarms.disk * 100,
            description=f"an instance uses more than {alarms.disk * 100:g} % of its disk",
            place="disk",
        )
        self.all = (self.latency, self.error_rate, self.memory, self.disk)

    def _alarm(
        self, construct_id: str, *, metric: cloudwatch.IMetric, threshold: float, description: str, place: str
    ) -> cloudwatch.Alarm:
        return cloudwatch.Alarm(
            self,
            construct_id,
            alarm_description=f"Endpoint {self._endpoint}: {description}. What to do: {self._runbook}#{place}",
            metric=metric,
            threshold=round(threshold, 9),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=EVALUATION_PERIODS,
            datapoints_to_alarm=DATAPOINTS_TO_ALARM,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
