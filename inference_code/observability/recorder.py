"""What the native server tells of its work: the metrics, CloudWatch's lines and one line of JSON a request.

Whoever serves a request only leaves a record. The records are put into words a little later, many at a time, on the
writer's thread: a caller does not wait for it. GET /metrics works off what is left before it answers.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inference_code.codecs.responses import Reply
from inference_code.execution.batching import BatchRecord
from inference_code.observability.cloudwatch_emf import CloudWatch
from inference_code.observability.log_writer import Writer
from inference_code.observability.metrics import Metrics, State

_MOST = 256  # records that wait at most; then whoever brings the next one works them off
_AT_ONCE = 8  # records between two moments at which other threads may go on


@dataclass(slots=True)
class Told:
    """What is told of one request; times in seconds, sizes in bytes. status None: its client was gone."""

    status: int | None
    response_bytes: int = 0
    answer: str = ""
    error: str = ""
    request_id: str = ""
    content_type: str = ""
    request_bytes: int = 0
    path: str = ""  # where it is not /invocations
    seconds: float = 0.0
    time: float = field(default_factory=time.time)
    bucket: str | None = None  # None: it did not get as far as a handler
    items: int = 0
    preprocess: float = 0.0
    postprocess: float = 0.0
    squeezes: tuple[float, ...] = ()
    predict_fn: float = 0.0
    device: tuple[float, float, tuple[int, ...], int, float] | None = None  # queue, device, cores, batch items, padding

    @classmethod
    def of(cls, reply: Reply) -> Told:
        """What is told of an answer."""
        error = reply.body.decode("ascii", "replace")[:300] if reply.status >= 400 else ""
        return cls(reply.status, len(reply.body), reply.content_type, error)


class Observer:
    """Takes records from any thread, and tells them."""

    def __init__(
        self, endpoint: str, write: Callable[[bytes], None], first_core: int = 0, process: int | None = None
    ) -> None:
        """process: this one's number, where there are several; first_core: that of its first core among all cores."""
        self._endpoint = endpoint
        self._first_core, self._process = first_core, process
        self._metrics = Metrics()
        self._records: collections.deque[Told | BatchRecord] = collections.deque()
        self._working = threading.Lock()
        self._writer = Writer(write, self._metrics.dropped.add, self._work_off)
        self._cloudwatch = CloudWatch(endpoint, self._writer.put)

    def request(self, told: Told) -> None:
        """A request is over."""
        self._take(told)

    def batch(self, batch: BatchRecord) -> None:
        """The device was called."""
        self._take(batch)

    def gone(self) -> None:
        """A client was gone."""
        self._metrics.gone.add()

    def text(self, gauges: Mapping[str, tuple[str, float]], others: Sequence[State] = ()) -> str:
        """The metrics in Prometheus' text format, added to `others`; `gauges`: name to (help, value now)."""
        self._work_off()
        return self._metrics.text(gauges, others)

    def state(self, gauges: Mapping[str, tuple[str, float]]) -> State:
        """The metrics as they are added to those of another process."""
        self._work_off()
        return self._metrics.state(gauges)

    def close(self) -> None:
        """Tell everything, within a second at most if nobody reads."""
        self._work_off()
        self._cloudwatch.flush()
        self._writer.close()

    def _take(self, record: Told | BatchRecord) -> None:
        self._records.append(record)
        if len(self._records) >= _MOST:
            self._work_off()
        else:
            self._writer.wake()

    def _work_off(self) -> None:
        with self._working:
            for done in range(len(self._records)):
                record = self._records.popleft()
                if isinstance(record, BatchRecord):
                    batch = replace(record, core=record.core + self._first_core)
                    self._metrics.batch(batch)
                    self._cloudwatch.batch(batch)
                else:
                    self._tell(record)
                if done % _AT_ONCE == _AT_ONCE - 1:
                    time.sleep(0)
        self._cloudwatch.tick()

    def _tell(self, told: Told) -> None:
        if told.status is not None:
            self._metrics.requests.add(str(told.status))
            self._metrics.total.observe(told.seconds)
        if told.bucket is not None and told.status is not None:
            self._metrics.pre.observe(told.preprocess, told.bucket)
            self._metrics.post.observe(told.postprocess, told.bucket)
            self._cloudwatch.request(told.bucket, told.preprocess, told.postprocess)
            for squeeze in told.squeezes:
                self._metrics.squeeze.observe(squeeze, told.bucket)
            if told.predict_fn:
                self._metrics.user.observe(told.predict_fn)
        self._writer.put(self._line(told))

    def _line(self, told: Told) -> dict[str, Any]:
        line: dict[str, Any] = {
            "event": "request",
            "time": int(told.time * 1000),
            "endpoint": self._endpoint,
            "request_id": told.request_id,
            "status": told.status,
        }
        if self._process is not None:
            line["process"] = self._process
        if told.status is not None:
            line |= {"response_bytes": told.response_bytes, "answer": told.answer}
        if told.error:
            line["error"] = told.error
        line |= {"content_type": told.content_type, "request_bytes": told.request_bytes}
        line["total_ms"] = _ms(told.seconds)
        if told.path:
            line["path"] = told.path
        if told.bucket is not None:
            line |= {"items": told.items, "bucket": told.bucket}
            line |= {"preprocess_ms": _ms(told.preprocess), "postprocess_ms": _ms(told.postprocess)}
        if told.squeezes:
            line["squeeze"] = round(max(told.squeezes), 4)
        if told.device is not None:
            queue, device, cores, batch_items, padding = told.device
            line |= {"queue_ms": _ms(queue), "device_ms": _ms(device)}
            line["core"] = sorted(core + self._first_core for core in cores)
            line |= {"batch_items": batch_items, "padding": round(padding, 4)}
        elif told.predict_fn:
            line["predict_fn_ms"] = _ms(told.predict_fn)
        return line


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
