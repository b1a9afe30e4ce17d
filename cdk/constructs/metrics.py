"""The CloudWatch metrics of one endpoint variant, each with the statistic that is right for it."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

MINUTE = Duration.minutes(1)
HANDLER_NAMESPACE = "InferentiaEndpoints"


@dataclass(frozen=True, kw_only=True)
class EndpointMetrics:
    """Makes metrics; owns no resource. https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html

    of_handler: whether the server writes metrics of its own, as the native one does.
    Latencies are microseconds in CloudWatch. Every metric has a period of one minute, which is SageMaker's own.
    """

    endpoint_name: str
    variant_name: str
    of_handler: bool = False

    def invocations(self) -> cloudwatch.Metric:
        """Requests a minute."""
        return self._invocation_metric("Invocations", "Sum", "Invocations")

    def invocations_per_instance(self) -> cloudwatch.Metric:
        """Requests a minute and instance: every request adds 1 / (number of instances)."""
        return self._invocation_metric("InvocationsPerInstance", "Sum", "Invocations per instance")

    def client_errors(self) -> cloudwatch.Metric:
        """Requests a minute that the model answered with 4xx."""
        return self._invocation_metric("Invocation4XXErrors", "Sum", "4xx (the client's)")

    def server_errors(self) -> cloudwatch.Metric:
        """Requests a minute that the model answered with 5xx."""
        return self._invocation_metric("Invocation5XXErrors", "Sum", "5xx (the model's)")

    def model_errors(self) -> cloudwatch.Metric:
        """Requests a minute without a 2xx answer: 4xx, 5xx, time-outs and broken connections."""
        return self._invocation_metric("InvocationModelErrors", "Sum", "Without a 2xx answer")

    def model_latency(self, statistic: str) -> cloudwatch.Metric:
        """Time in the container, in microseconds. statistic: p50, p90, p99 ..."""
        return self._invocation_metric("ModelLatency", statistic)

    def overhead_latency(self, statistic: str) -> cloudwatch.Metric:
        """Time that SageMaker adds, in microseconds. statistic: p50, p90, p99 ..."""
        return self._invocation_metric("OverheadLatency", statistic)

    def concurrent_requests(self, statistic: str) -> cloudwatch.Metric:
        """Requests in flight within a minute. statistic: Average, which scaling follows, or Maximum."""
        return self._invocation_metric("ConcurrentRequestsPerModel", statistic, statistic)

    def cpu(self) -> cloudwatch.Metric:
        """Busiest instance, in per cent of one vCPU (100 % for each vCPU)."""
        return self._instance_metric("CPUUtilization", "CPU, busiest instance")

    def memory(self) -> cloudwatch.Metric:
        """Fullest instance, in per cent of its memory."""
        return self._instance_metric("MemoryUtilization", "Memory, fullest instance")

    def disk(self) -> cloudwatch.Metric:
        """Fullest instance, in per cent of its disk."""
        return self._instance_metric("DiskUtilization", "Disk, fullest instance")

    def handler(self, name: str, statistic: str, label: str) -> cloudwatch.Metric:
        """A metric that the native server writes in its log, over all buckets and cores."""
        return cloudwatch.Metric(
            namespace=HANDLER_NAMESPACE,
            metric_name=name,
            dimensions_map={"Endpoint": self.endpoint_name},
            statistic=statistic,
            period=MINUTE,
            label=label,
        )

    def error_percentage(self, *, min_requests: int) -> cloudwatch.MathExpression:
        """Server errors in per cent of the requests of a minute; 0 in a minute with fewer than min_requests.

        A client's errors do not count: they would let any caller ring the alarm.
        """
        return cloudwatch.MathExpression(
            expression=f"IF(invocations >= {min_requests}, 100 * errors / invocations, 0)",
            using_metrics={"invocations": self.invocations(), "errors": self.server_errors()},
            label="Errors in per cent of requests",
            period=MINUTE,
        )

    def judged_latency(self, *, min_requests: int) -> cloudwatch.MathExpression:
        """p99 of the model's latency, in microseconds; 0 in a minute with fewer than min_requests requests.

        Of few requests the 99th percentile is the slowest one, such as the first that a new worker answers.
        """
        return cloudwatch.MathExpression(
            expression=f"IF(invocations >= {min_requests}, p99, 0)",
            using_metrics={"invocations": self.invocations(), "p99": self.model_latency("p99")},
            label="p99 of the model's latency",
            period=MINUTE,
        )

    def instance_count(self) -> cloudwatch.MathExpression:
        """Instances that answered, from the definition of InvocationsPerInstance; no value without requests."""
        return cloudwatch.MathExpression(
            expression="invocations / per_instance",
            using_metrics={"invocations": self.invocations(), "per_instance": self.invocations_per_instance()},
            label="Instances that answered",
            period=MINUTE,
        )

    def _invocation_metric(self, name: str, statistic: str, label: str | None = None) -> cloudwatch.Metric:
        return self._metric("AWS/SageMaker", name, statistic, label)

    def _instance_metric(self, name: str, label: str) -> cloudwatch.Metric:
        return self._metric("/aws/sagemaker/Endpoints", name, "Maximum", label)

    def _metric(self, namespace: str, name: str, statistic: str, label: str | None) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map={"EndpointName": self.endpoint_name, "VariantName": self.variant_name},
            statistic=statistic,
            period=MINUTE,
            label=label,
        )
