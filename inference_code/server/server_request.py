"""One request inside the server, from its head to its log record."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from inference_code.codecs.responses import Reply
from inference_code.errors import Unavailable
from inference_code.execution.batching import ItemResult
from inference_code.execution.request_future import DeviceUsage, RequestFuture

_NOTHING: Mapping[str, str] = {}


class ServerRequest:
    """What came, where the response goes, and what there is to record of it (observability.recorder.RequestRecord).

    headers: by name in lower case. respond: called once, on any thread, with the response. deadline, arrived: times of
    time.monotonic; `time` is the wall clock's. Durations are in seconds.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        *,
        body: bytes | memoryview = b"",
        path: str = "/invocations",
        request_id: str = "-",
        deadline: float = math.inf,
        respond: Callable[[Reply], None] = lambda _: None,
    ) -> None:
        self.arrived, self.time = time.monotonic(), time.time()
        self.headers, self.body, self.path, self.request_id = headers, body, path, request_id
        self.deadline, self.respond = deadline, respond
        self.cancelled = False
        # For the record:
        self.content_type = headers.get("content-type", "")[:100]
        self.request_bytes = 0
        self.status: int | None = None
        self.response_type, self.response_bytes, self.error = "", 0, ""
        self.seconds = 0.0
        self.bucket: str | None = None
        self.items = 0
        self.aspect_distortions: tuple[float, ...] = ()
        self.preprocess_seconds = self.predict_fn_seconds = self.postprocess_seconds = 0.0
        self.device: DeviceUsage | None = None
        self._calls: set[RequestFuture] = set()  # of the device, under way
        self._responded = self._recorded = False
        self._lock = threading.Lock()

    def finish(self, reply: Reply) -> None:
        """Respond, unless that has been done."""
        with self._lock:
            if self._responded:
                return
            self._responded = True
        self.respond(reply)

    def check_deadline(self) -> None:
        """Raise Unavailable for a request that is cancelled, or past its deadline."""
        if self.cancelled or time.monotonic() >= self.deadline:
            when = " before inference started" if self.device is None else ""
            raise Unavailable(f"request deadline exceeded{when}; retry", retry_after=1)

    # Its calls of the device ----------------------------------------------------------------------------------------

    def begin_call(self, future: RequestFuture) -> None:
        """A call of the device is under way."""
        with self._lock:
            self._calls.add(future)
            if self.device is None and not self._recorded:
                self.device = DeviceUsage()

    def end_call(self, future: RequestFuture) -> list[ItemResult]:
        """The results of a call that is done; what it took of the device is added to the record."""
        with self._lock:
            self._calls.discard(future)
            if self.device is not None and not self._recorded:
                self.device.add_sequential(future.usage)
        return future.results

    def calls(self) -> list[RequestFuture]:
        """The calls of the device that are under way."""
        with self._lock:
            return list(self._calls)

    # The record -----------------------------------------------------------------------------------------------------

    def record(self, reply: Reply | None, seconds: float) -> None:
        """Complete the record, and let go of the body: records are kept for a while. None: the client was gone."""
        self.seconds, self.request_bytes = seconds, len(self.body)
        if reply is None:
            self.error = "client_gone"
        else:
            self.status, self.response_bytes, self.response_type = reply.status, len(reply.body), reply.content_type
            self.error = reply.body.decode("ascii", "replace")[:300] if reply.status >= 400 else ""
        self.body, self.headers = b"", _NOTHING
        with self._lock:  # what is still on the device adds nothing any more
            self._recorded, self._responded, self.respond = True, True, lambda _: None
            self.device = self._usage()

    def _usage(self) -> DeviceUsage | None:
        if self.device is None:
            return None
        usage = DeviceUsage()
        for part in (self.device, *(future.usage for future in self._calls)):
            usage.add_sequential(part)
        return usage
