"""Metrics for CloudWatch as log lines in its embedded metric format, which needs no agent and no credentials.

SageMaker sends a container's output to CloudWatch Logs, and CloudWatch makes metrics of such lines.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
Values are collected and written every ten seconds, or as soon as a metric has the hundred values that a line can hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from inference_code.execution.batching import BatchRecord, label

NAMESPACE = "InferentiaEndpoints"
_MAX_VALUES = 100  # of one metric in one line, by the specification
_UNITS = {
    "QueueTime": "Milliseconds",
    "DeviceTime": "Milliseconds",
    "PreprocessTime": "Milliseconds",
    "PostprocessTime": "Milliseconds",
    "BatchSize": "Count",
    "PaddingWaste": "Percent",
}


class CloudWatch:
    """Collects the metrics' values by bucket, and gives them out as embedded metric lines.

    Not by core: each set of dimensions is a custom metric, which costs; GET /metrics tells the cores apart.
    """

    def __init__(
        self,
        endpoint: str,
        put: Callable[[Mapping[str, Any]], None],
        interval: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._put = put
        self._interval = interval
        self._clock = clock
        self._since = clock()
        self._values: dict[str, dict[str, list[float]]] = {}
        self._lock = threading.Lock()

    def batch(self, batch: BatchRecord) -> None:
        """Take in one call of the device."""
        values = {
            "QueueTime": [seconds * 1000 for seconds in batch.waited],
            "DeviceTime": [batch.seconds * 1000],
            "BatchSize": [float(len(batch.waited))],
            "PaddingWaste": [batch.padding * 100],
        }
        self.add(label(batch.graph), values)

    def request(self, bucket: str, pre: float, post: float) -> None:
        """Take in the seconds of a request's pre- and postprocessing."""
        self.add(bucket, {"PreprocessTime": [pre * 1000], "PostprocessTime": [post * 1000]})

    def add(self, bucket: str, values: Mapping[str, list[float]]) -> None:
        """Collect; what is full or due is given out."""
        with self._lock:
            held = self._values.setdefault(bucket, {})
            for name, more in values.items():
                held.setdefault(name, []).extend(more)
            full = max(len(numbers) for numbers in held.values()) >= _MAX_VALUES
        if full or self._clock() - self._since >= self._interval:
            self.flush()

    def tick(self) -> None:
        """Give out what is due, when no request comes."""
        if self._clock() - self._since >= self._interval:
            self.flush()

    def flush(self) -> None:
        """Give out everything."""
        with self._lock:
            collected, self._values, self._since = self._values, {}, self._clock()
        for bucket, values in collected.items():
            longest = max(len(numbers) for numbers in values.values())
            for start in range(0, longest, _MAX_VALUES):
                part = {name: numbers[start : start + _MAX_VALUES] for name, numbers in values.items()}
                self._put(self._line(bucket, {name: numbers for name, numbers in part.items() if numbers}))

    def _line(self, bucket: str, values: Mapping[str, list[float]]) -> dict[str, Any]:
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [["Endpoint"], ["Endpoint", "Bucket"]],
            "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in values],
        }
        rounded = {name: [round(number, 4) for number in numbers] for name, numbers in values.items()}
        aws = {"Timestamp": int(self._clock() * 1000), "CloudWatchMetrics": [directive]}
        return {"_aws": aws, "Endpoint": self._endpoint, "Bucket": bucket, **rounded}
