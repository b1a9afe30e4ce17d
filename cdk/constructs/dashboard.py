"""The dashboard of one endpoint: four rows, each answering one question; a fifth of the native server's own metrics."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from endpoint_spec.endpoint import Alarms, Scale

from .metrics import EndpointMetrics

HEIGHT = 6
PERCENTILES = ("p50", "p90", "p99")
FROM_ZERO = cloudwatch.YAxisProps(min=0)


class EndpointDashboard(Construct):
    """Rows: traffic, errors, latency with overhead, saturation with the number of instances, batching."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        metrics: EndpointMetrics,
        alarms: Alarms,
        scale: Scale,
        target_value: float,
    ) -> None:
        """alarms, scale: the spec's sections. target_value: that of scaling, drawn as a line where it is measured."""
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
    def _errors(metrics: EndpointMetrics, alarms: Alarms) -> Sequence[cloudwatch.IWidget]:
        counts = [metrics.client_errors(), metrics.server_errors(), metrics.model_errors()]
        share = metrics.error_percentage(min_requests=alarms.min_requests)
        return [
            _graph("Errors: requests a minute", counts, width=12),
            _graph("Errors: per cent of requests", [share], width=12, lines={"alarm": alarms.error_rate * 100}),
        ]

    @staticmethod
    def _latency(metrics: EndpointMetrics, alarms: Alarms) -> Sequence[cloudwatch.IWidget]:
        limit = alarms.p99_latency / timedelta(microseconds=1)
        model = [metrics.model_latency(percentile).with_(label=percentile) for percentile in PERCENTILES]
        overhead = [metrics.overhead_latency(percentile).with_(label=percentile) for percentile in PERCENTILES]
        return [
            _graph("Latency of the model (microseconds)", model, width=12, lines={"alarm": limit}),
            _graph("Latency added by SageMaker (microseconds)", overhead, width=12),
        ]

    @staticmethod
    def _saturation(metrics: EndpointMetrics, scale: Scale, target: dict[str, float]) -> Sequence[cloudwatch.IWidget]:
        bounds = {"fewest": float(scale.min), "most": float(scale.max)}
        instance = [metrics.cpu(), metrics.memory(), metrics.disk()]
        return [
            _graph("Saturation: concurrent requests", [metrics.concurrent_requests()], width=8, lines=target),
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
