"""Requests append a record; a background thread formats records as logs and metrics.

One line of JSON for each request, Prometheus' metrics, and CloudWatch's lines. GET /metrics formats what is left before
it answers.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from inference_code.execution.batching import BatchRecord
from inference_code.execution.request_future import DeviceUsage
from inference_code.observability.cloudwatch_emf import CloudWatch
from inference_code.observability.log_writer import Writer
from inference_code.observability.metrics import Metrics, State

_MAX_RECORDS = 256  # that wait at most; the thread that brings the next one formats them
_CHUNK = 8  # records between two moments at which other threads may go on


class RequestRecord(Protocol):
    """What is read of a finished request. Durations are in seconds, sizes in bytes, `time` is the wall clock's.

    status: None where the client was gone. bucket: None where it did not get as far as the model's handler; device:
    None where nothing of it was sent to the device. error: the body of an error response, shortened.
    response_type: the content type of the response. path: /invocations, or what was asked for instead.
    """

    request_id: str
    time: float
    path: str
    content_type: str
    request_bytes: int
    status: int | None
    response_type: str
    response_bytes: int
    error: str
    seconds: float
    bucket: str | None
    items: int
    aspect_distortions: tuple[float, ...]
    preprocess_seconds: float
    predict_fn_seconds: float
    postprocess_seconds: float
    device: DeviceUsage | None


class RequestRecorder:
    """Takes records from any thread, and formats them on its writer's."""

    def __init__(
        self, endpoint: str, write: Callable[[bytes], None], first_core: int = 0, process: int | None = None
    ) -> None:
        """process: this one's number, where there are several; first_core: that of its first core among all cores."""
        self._endpoint = endpoint
        self._first_core, self._process = first_core, process
        self._metrics = Metrics()
        self._records: collections.deque[RequestRecord | BatchRecord] = collections.deque()
        self._formatting = threading.Lock()
        self._writer = Writer(write, self._metrics.dropped.add, self._format_all)
        self._cloudwatch = CloudWatch(endpoint, self._writer.put)

    def request(self, record: RequestRecord) -> None:
        """A request is over."""
        self._append(record)

    def batch(self, batch: BatchRecord) -> None:
        """The device was called."""
        self._append(batch)

    def gone(self) -> None:
        """A client was gone."""
        self._metrics.gone.add()

    def text(self, gauges: Mapping[str, tuple[str, float]], others: Sequence[State] = ()) -> str:
        """The metrics in Prometheus' text format, added to `others`; `gauges`: name to (help, value now)."""
        self._format_all()
        return self._metrics.text(gauges, others)

    def state(self, gauges: Mapping[str, tuple[str, float]]) -> State:
        """The metrics as they are added to those of another process."""
        self._format_all()
        return self._metrics.state(gauges)

    def close(self) -> None:
        """Write everything, within a second at most if nobody reads."""
        self._format_all()
        self._cloudwatch.flush()
        self._writer.close()

    def _append(self, record: RequestRecord | BatchRecord) -> None:
        self._records.append(record)
        if len(self._records) >= _MAX_RECORDS:
            self._format_all()
        else:
            self._writer.wake()

    def _format_all(self) -> None:
        with self._formatting:
            for done in range(len(self._records)):
                record = self._records.popleft()
                if isinstance(record, BatchRecord):
                    batch = replace(record, core=record.core + self._first_core)
                    self._metrics.batch(batch)
                    self._cloudwatch.batch(batch)
                else:
                    self._format(record)
                if done % _CHUNK == _CHUNK - 1:
                    time.sleep(0)
        self._cloudwatch.tick()

    def _format(self, record: RequestRecord) -> None:
        if record.status is not None:
            self._metrics.requests.add(str(record.status))
            self._metrics.total.observe(record.seconds)
        if record.bucket is not None and record.status is not None:
            self._metrics.pre.observe(record.preprocess_seconds, record.bucket)
            self._metrics.post.observe(record.postprocess_seconds, record.bucket)
            self._cloudwatch.request(record.bucket, record.preprocess_seconds, record.postprocess_seconds)
            for distortion in record.aspect_distortions:
                self._metrics.aspect_distortion.observe(distortion, record.bucket)
            if record.predict_fn_seconds:
                self._metrics.user.observe(record.predict_fn_seconds)
        self._writer.put(self._line(record))

    def _line(self, record: RequestRecord) -> dict[str, Any]:
        line: dict[str, Any] = {
            "event": "request",
            "time": int(record.time * 1000),
            "endpoint": self._endpoint,
            "request_id": record.request_id,
            "status": record.status,
        }
        if self._process is not None:
            line["process"] = self._process
        if record.status is not None:
            line |= {"response_bytes": record.response_bytes, "answer": record.response_type}
        if record.error:
            line["error"] = record.error
        line |= {"content_type": record.content_type, "request_bytes": record.request_bytes}
        line["total_ms"] = _ms(record.seconds)
        if record.path != "/invocations":
            line["path"] = record.path[:100]
        if record.bucket is not None:
            line |= {"items": record.items, "bucket": record.bucket}
            line |= {"preprocess_ms": _ms(record.preprocess_seconds), "postprocess_ms": _ms(record.postprocess_seconds)}
        if record.aspect_distortions:
            line["aspect_distortion"] = round(max(record.aspect_distortions), 4)
        if record.device is not None:
            device = record.device
            line |= {"queue_ms": _ms(device.queue_seconds), "device_ms": _ms(device.device_seconds)}
            line["core"] = sorted(core + self._first_core for core in device.cores)
            line |= {"batch_items": device.batch_items, "padding": round(device.padding, 4)}
        elif record.predict_fn_seconds:
            line["predict_fn_ms"] = _ms(record.predict_fn_seconds)
        return line


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
