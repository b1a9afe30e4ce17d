"""The dashboard of one endpoint: four rows, each answering one question; a fifth of the native server's own metrics."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from endpoint_spec.endpoint import Scale

from .alarms import EndpointAlarms
from .metrics import EndpointMetrics

HEIGHT = 6
PERCENTILES = ("p50", "p90", "p99")
FROM_ZERO = cloudwatch.YAxisProps(min=0)


class EndpointDashboard(Construct):
    """Rows: traffic, errors, latency with overhead, saturation with the number of instances, batching.

    What an alarm watches is drawn by the alarm itself, with its threshold. So a changed threshold changes the alarm
    alone, and `cdk diff` shows one line instead of the dashboard's text.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        metrics: EndpointMetrics,
        alarms: EndpointAlarms,
        scale: Scale,
        target_value: float,
    ) -> None:
        """scale: the spec's section. target_value: that of scaling, drawn as a line where it is measured."""
        super().__init__(scope, construct_id)
        target = {} if scale.fixed else {"scaling target": target_value}
        self.dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            widgets=[
                self._traffic(metrics, target if scale.policy == "invocations" else {}),
                self._errors(metrics, alarms),
                self._latency(metrics, alarms),
                self._saturation(metrics, scale, target if scale.policy == "concurrency" else {}),
                *([self._batching(metrics)] if metrics.of_handler else []),
            ],
        )

    @staticmethod
    def _traffic(metrics: EndpointMetrics, target: dict[str, float]) -> Sequence[cloudwatch.IWidget]:
        per_instance = [metrics.invocations_per_instance()]
        return [
            _graph("Traffic: requests a minute", [metrics.invocations()], width=12),
            _graph("Traffic: requests a minute and instance", per_instance, width=12, lines=target),
        ]

    @staticmethod
    def _errors(metrics: EndpointMetrics, alarms: EndpointAlarms) -> Sequence[cloudwatch.IWidget]:
        counts = [metrics.client_errors(), metrics.server_errors(), metrics.model_errors()]
        return [
            _graph("Errors: requests a minute", counts, width=12),
            _alarm("Errors: per cent of requests", alarms.error_rate, width=12),
        ]

    @staticmethod
    def _latency(metrics: EndpointMetrics, alarms: EndpointAlarms) -> Sequence[cloudwatch.IWidget]:
        model = [metrics.model_latency(percentile).with_(label=percentile) for percentile in PERCENTILES]
        overhead = [metrics.overhead_latency(percentile).with_(label=percentile) for percentile in PERCENTILES]
        return [
            _alarm("Latency of the model: p99, as the alarm sees it (microseconds)", alarms.latency, width=8),
            _graph("Latency of the model (microseconds)", model, width=8),
            _graph("Latency added by SageMaker (microseconds)", overhead, width=8),
        ]

    @staticmethod
    def _saturation(metrics: EndpointMetrics, scale: Scale, target: dict[str, float]) -> Sequence[cloudwatch.IWidget]:
        bounds = {"fewest": float(scale.min), "most": float(scale.max)}
        instance = [metrics.cpu(), metrics.memory(), metrics.disk()]
        concurrent = [metrics.concurrent_requests(statistic) for statistic in ("Average", "Maximum")]
        return [
            _graph("Saturation: concurrent requests", concurrent, width=8, lines=target),
            _graph("Saturation: instances (per cent)", instance, width=8),
            _graph("Instances", [metrics.instance_count()], width=8, lines=bounds),
        ]

    @staticmethod
    def _batching(metrics: EndpointMetrics) -> Sequence[cloudwatch.IWidget]:
        times = [
            metrics.handler(name, percentile, f"{words}, {percentile}")
            for name, words in (("QueueTime", "Waiting for a core"), ("DeviceTime", "On the device"))
            for percentile in ("p50", "p99")
        ]
        steps = [
            metrics.handler("PreprocessTime", "p50", "Decoding, p50"),
            metrics.handler("PostprocessTime", "p50", "Encoding, p50"),
        ]
        return [
            _graph("Batching: milliseconds", [*times, *steps], width=8),
            _graph("Batching: items of a batch", [metrics.handler("BatchSize", "Average", "Items")], width=8),
            _graph("Batching: padding (per cent)", [metrics.handler("PaddingWaste", "Average", "Wasted")], width=8),
        ]


def _graph(
    title: str, metrics: Sequence[cloudwatch.IMetric], *, width: int, lines: dict[str, float] | None = None
) -> cloudwatch.GraphWidget:
    annotations = [
        cloudwatch.HorizontalAnnotation(label=label, value=round(value, 9)) for label, value in (lines or {}).items()
    ]
    return cloudwatch.GraphWidget(
        title=title,
        left=metrics,
        left_annotations=annotations,
        left_y_axis=FROM_ZERO,
        width=width,
        height=HEIGHT,
    )


def _alarm(title: str, alarm: cloudwatch.IAlarm, *, width: int) -> cloudwatch.AlarmWidget:
    return cloudwatch.AlarmWidget(title=title, alarm=alarm, left_y_axis=FROM_ZERO, width=width, height=HEIGHT)
