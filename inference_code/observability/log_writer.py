"""Lines of JSON on standard output, written by a background thread.

When nobody reads the output, lines are dropped and counted; no request waits for it.
"""

from __future__ import annotations

import collections
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

_MAX_LINES = 10_000  # that wait to be written
_LINES_AT_ONCE = 100
_PAUSE_SECONDS = 0.02
_log = logging.getLogger(__name__)


def to_stdout(data: bytes) -> None:
    """Write to file descriptor 1, past Python's buffer: its lock would stop the exit if nobody reads."""
    while data:
        data = data[os.write(1, data) :]


def announce(line: str) -> None:
    """Write one line at the start. Serving does not depend on a standard output that takes it."""
    try:
        to_stdout(f"{line}\n".encode())
    except OSError as error:
        _log.warning("standard output takes no line: %s", error.strerror)


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
