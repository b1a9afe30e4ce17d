"""What the native server writes on standard output: one line of JSON a request, and metrics for CloudWatch.

The metrics are in CloudWatch's embedded metric format, which needs no agent and no credentials: SageMaker sends a
container's output to CloudWatch Logs, and CloudWatch makes metrics of such lines.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
Values are collected and written every ten seconds, or as soon as a metric has the hundred values that a line can hold.

A thread of its own writes. When nobody reads the output, lines are dropped and counted, but no request waits.
"""

from __future__ import annotations

import collections
import contextvars
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from inference_code.execution.batching import label
from inference_code.execution.scheduler import Batch

NAMESPACE = "InferentiaEndpoints"
_MAX_VALUES = 100  # of one metric in one line, by the specification
_MAX_LINES = 10_000  # that wait to be written
_LINES_AT_ONCE = 100
_PAUSE_SECONDS = 0.02
_UNITS = {
    "QueueTime": "Milliseconds",
    "DeviceTime": "Milliseconds",
    "PreprocessTime": "Milliseconds",
    "PostprocessTime": "Milliseconds",
    "BatchSize": "Count",
    "PaddingWaste": "Percent",
}

# The request that the current thread works for; the log lines of the handler carry it.
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="-")


class WithRequestId(logging.Filter):
    """Gives every record the attribute request_id."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        record.request_id = request_id.get()
        return True


def to_stdout(data: bytes) -> None:
    """Write to file descriptor 1, past Python's buffer: its lock would stop the exit if nobody reads."""
    while data:
        data = data[os.write(1, data) :]


class Writer:
    """Writes lines on a thread of its own.

    `collect` is called on it: soon after `wake`, about once a second without, before the lines are written that it and
    others have `put`.
    """

    def __init__(
        self,
        write: Callable[[bytes], None] = to_stdout,
        dropped: Callable[[], None] = lambda: None,
        collect: Callable[[], None] = lambda: None,
    ) -> None:
        self._write = write
        self._dropped = dropped
        self._collect = collect
        self._lines: collections.deque[str] = collections.deque()
        self._closing = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def put(self, value: Mapping[str, Any]) -> None:
        """Write `value` as one line of JSON, later. Never waits."""
        if len(self._lines) >= _MAX_LINES:
            self._dropped()
            return
        self._lines.append(json.dumps(value))
        self.wake()

    def wake(self) -> None:
        """There is something to collect."""
        if not self._woken.is_set():
            self._woken.set()

    def close(self, seconds: float = 1.0) -> None:
        """Write what is left, for at most `seconds`."""
        self._closing = True
        self._woken.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            self._woken.wait(1.0)
            if not self._closing:
                time.sleep(_PAUSE_SECONDS)  # many lines at once: a wake-up for each would hold up the requests
            self._woken.clear()
            closing = self._closing
            self._collect()
            while self._lines:
                self._write_all([self._lines.popleft() for _ in range(min(_LINES_AT_ONCE, len(self._lines)))])
            if closing:
                return

    def _write_all(self, lines: list[str]) -> None:
        try:
            self._write("".join(f"{line}\n" for line in lines).encode())
        except OSError:  # the reader has closed the pipe: there is no place left to say so
            for _ in lines:
                self._dropped()


class CloudWatch:
    """Collects the metrics' values by bucket and core, and gives them out as embedded metric lines."""

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
        self._values: dict[tuple[tuple[str, str], ...], dict[str, list[float]]] = {}
        self._lock = threading.Lock()

    def batch(self, batch: Batch) -> None:
        """Take in one call of the device."""
        values = {
            "QueueTime": [seconds * 1000 for seconds in batch.waited],
            "DeviceTime": [batch.seconds * 1000],
            "BatchSize": [float(len(batch.waited))],
            "PaddingWaste": [batch.padding * 100],
        }
        self.add({"Bucket": label(batch.graph), "Core": str(batch.core)}, values)

    def request(self, bucket: str, pre: float, post: float) -> None:
        """Take in the seconds of a request's pre- and postprocessing."""
        self.add({"Bucket": bucket}, {"PreprocessTime": [pre * 1000], "PostprocessTime": [post * 1000]})

    def add(self, dimensions: Mapping[str, str], values: Mapping[str, list[float]]) -> None:
        """Collect; what is full or due is given out."""
        with self._lock:
            held = self._values.setdefault(tuple(dimensions.items()), {})
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
        for dimensions, values in collected.items():
            longest = max(len(numbers) for numbers in values.values())
            for start in range(0, longest, _MAX_VALUES):
                part = {name: numbers[start : start + _MAX_VALUES] for name, numbers in values.items()}
                self._put(self._line(dict(dimensions), {name: numbers for name, numbers in part.items() if numbers}))

    def _line(self, dimensions: Mapping[str, str], values: Mapping[str, list[float]]) -> dict[str, Any]:
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [["Endpoint"], ["Endpoint", *dimensions]],
            "Metrics": [{"Name": name, "Unit": _UNITS[name]} for name in values],
        }
        rounded = {name: [round(number, 4) for number in numbers] for name, numbers in values.items()}
        aws = {"Timestamp": int(self._clock() * 1000), "CloudWatchMetrics": [directive]}
        return {"_aws": aws, "Endpoint": self._endpoint, **dimensions, **rounded}
