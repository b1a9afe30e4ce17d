"""The two alarms of an endpoint: too slow, and failing."""

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
    """latency: p99 of the model's latency. error_rate: server errors in per cent of requests.

    Minutes without data are not breaching: an endpoint without requests is neither slow nor failing.
    """

    def __init__(self, scope: Construct, construct_id: str, *, metrics: EndpointMetrics, alarms: Alarms) -> None:
        """alarms: the spec's section. A minute with fewer than min_requests requests cannot ring the error alarm."""
        super().__init__(scope, construct_id)
        milliseconds = alarms.p99_latency / timedelta(milliseconds=1)
        percent = alarms.error_rate * 100
        self.latency = self._alarm(
            "Latency",
            metric=metrics.model_latency("p99"),
            threshold=alarms.p99_latency / timedelta(microseconds=1),
            description=f"Endpoint {metrics.endpoint_name}: p99 of the model's latency is above {milliseconds:g} ms.",
        )
        self.error_rate = self._alarm(
            "ErrorRate",
            metric=metrics.error_percentage(min_requests=alarms.min_requests),
            threshold=percent,
            description=f"Endpoint {metrics.endpoint_name}: more than {percent:g} % of the requests of a minute failed "
            f"(5xx; minutes with fewer than {alarms.min_requests} requests do not count).",
        )

    def _alarm(
        self, construct_id: str, *, metric: cloudwatch.IMetric, threshold: float, description: str
    ) -> cloudwatch.Alarm:
        return cloudwatch.Alarm(
            self,
            construct_id,
            alarm_description=description,
            metric=metric,
            threshold=round(threshold, 9),
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=EVALUATION_PERIODS,
            datapoints_to_alarm=DATAPOINTS_TO_ALARM,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
