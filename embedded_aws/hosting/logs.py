"""A worker's output goes to CloudWatch Logs, as a container's does.

Source: "Log groups and streams that Amazon SageMaker AI logs": /aws/sagemaker/Endpoints/[EndpointName], stream
[production-variant-name]/[instance-id],
https://docs.aws.amazon.com/sagemaker/latest/dg/logging-cloudwatch.html
"""

from __future__ import annotations

import collections
import logging
import queue
import threading
import time
from typing import IO

from botocore.exceptions import BotoCoreError, ClientError

from ..clients import Clients

log = logging.getLogger(__name__)
KEPT_LINES = 20
FLUSH_SECONDS = 0.5


def log_group(endpoint: str) -> str:
    """The log group of an endpoint."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


class LogShipper:
    """Reads lines until the stream ends, keeps the last ones and puts all of them into CloudWatch Logs."""

    def __init__(self, clients: Clients, region: str, group: str, stream: str) -> None:
        self.group, self.stream = group, stream
        self.last: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._client = clients.client("logs", region)
        self._lines: queue.Queue[dict[str, object] | None] = queue.Queue()
        self._reader: threading.Thread | None = None
        self._shipper: threading.Thread | None = None

    def follow(self, source: IO[str]) -> None:
        """Start reading; both threads end with the stream."""
        self._reader = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._reader.start()
        self._shipper = threading.Thread(target=self._ship, daemon=True)
        self._shipper.start()

    def finished(self, seconds: float) -> None:
        """Wait until the last line was read, so that `last` is complete."""
        if self._reader is not None:
            self._reader.join(seconds)

    def shipped(self, seconds: float) -> None:
        """Wait until the last line is in CloudWatch Logs."""
        if self._shipper is not None:
            self._shipper.join(seconds)

    def say(self, line: str) -> None:
        """A line of the host itself; it is not one of the worker's last lines."""
        self._put(f"[host] {line}")

    def _put(self, line: str) -> None:
        # a log event's message must not be empty
        self._lines.put({"timestamp": int(time.time() * 1000), "message": line or " "})

    def _read(self, source: IO[str]) -> None:
        with source:
            for line in source:
                self.last.append(line.rstrip("\n"))
                self._put(line.rstrip("\n"))
        self._lines.put(None)

    def _ship(self) -> None:
        self._make()
        ended = False
        while not ended:
            batch = [self._lines.get()]
            time.sleep(FLUSH_SECONDS)
            while not self._lines.empty():
                batch.append(self._lines.get())
            ended = None in batch
            events = [event for event in batch if event is not None]
            for start in range(0, len(events), 1000):
                self._send(events[start : start + 1000])

    def _send(self, events: list[dict[str, object]]) -> None:
        try:
            self._client.put_log_events(logGroupName=self.group, logStreamName=self.stream, logEvents=events)
        except (ClientError, BotoCoreError) as error:
            # the log group may be deleted while the worker still ends
            log.warning("%s %s: %s lines lost: %s", self.group, self.stream, len(events), error)

    def _make(self) -> None:
        for make, names in (
            (self._client.create_log_group, {"logGroupName": self.group}),
            (self._client.create_log_stream, {"logGroupName": self.group, "logStreamName": self.stream}),
        ):
            try:
                make(**names)
            except self._client.exceptions.ResourceAlreadyExistsException:
                continue
            except (ClientError, BotoCoreError) as error:
                log.warning("%s %s: %s", self.group, self.stream, error)
