"""What clients may make the server hold on connections: heads, bodies and answers that come or leave too slowly.

Nothing here is done for a request. Every now and then a sweep looks at all connections, by what their protocols
(http_protocol.py) count anyway. Where a bound is reached in between, the connection that has moved no byte for longest
gives way: clients that send and read are served beside any number of others that do not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from inference_code.errors import RequestTimeout, Unavailable
from inference_code.settings import Settings

CONNECTION = "inference_code.connection"  # in scope["state"]
HEAD, BODY, ANSWER, IDLE = "head", "body", "answer", "idle"
_STALLED_SECONDS = 1.0  # without a byte, after which a connection may have to give way
_LOG_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Connection(Protocol):
    """A client's connection, as its protocol shows it."""

    transport: Any
    body_bytes: int  # of a large body that is being received
    answer_bytes: int  # of a large answer that is being sent
    sweep: Sweep

    def phase(self) -> tuple[str, object]:
        """What is waited for, and which one of them: another one begins anew."""

    def moved(self) -> int:
        """Bytes of it so far: a number that rises while they move."""

    def refuse(self, error: Any) -> None:
        """Answer with an error, if an answer can still be given, and close."""


class Sweep:
    """What the last sweeps saw of a connection."""

    def __init__(self, now: float) -> None:
        self.phase: tuple[str, object] = (IDLE, None)
        self.begun = self.last_moved = now  # of the window; when a byte was seen to move
        self.at_begin = self.last = 0  # bytes moved, by then


class Traffic:
    """The connections of this process, and their bounds."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._connections: set[Connection] = set()
        self._bodies = self._answers = 0  # bytes
        self._logged = -_LOG_SECONDS

    def add(self, connection: Connection) -> None:
        """It has been made."""
        connection.sweep = Sweep(self._clock())
        self._connections.add(connection)

    def remove(self, connection: Connection) -> None:
        """It is closed."""
        self._connections.discard(connection)
        self.body_received(connection, -connection.body_bytes)

    def body_received(self, connection: Connection, size: int) -> None:
        """Count `size` bytes of a large body; less than 0 once it is whole."""
        connection.body_bytes += size
        self._bodies += size
        most = self._settings.transfer_bytes
        while size > 0 and self._bodies > most and self._bodies != connection.body_bytes:
            if not self.close_stalled(BODY, connection):
                full = f"bodies of {most} bytes are being received (ENDPOINT_TRANSFER_BYTES); retry"
                connection.refuse(Unavailable(full, retry_after=1))
                return

    def answer_begins(self, connection: Connection, size: int) -> None:
        """Count an answer that is going to be sent. Raises Unavailable when others take the room."""
        connection.answer_bytes = size
        self._answers += size
        most = self._settings.transfer_bytes
        while self._answers > most and self._answers != size:
            if not self.close_stalled(ANSWER, connection):
                self.answer_ends(connection)
                full = f"answers of {most} bytes are being sent (ENDPOINT_TRANSFER_BYTES); retry"
                raise Unavailable(full, retry_after=1)

    def answer_ends(self, connection: Connection) -> None:
        """It has left, or its connection is closed."""
        self._answers -= connection.answer_bytes
        connection.answer_bytes = 0

    def close_stalled(self, phase: str, keep: Connection | None = None) -> bool:
        """Close the connection in `phase` that has moved nothing for longest. Whether there was one that moves none."""
        before = self._clock() - _STALLED_SECONDS
        stalled = [
            one for one in self._connections
            if one is not keep and one.sweep.last_moved < before and one.phase()[0] == phase
        ]  # fmt: skip
        if stalled:
            longest = min(stalled, key=lambda one: one.sweep.last_moved)
            self.answer_ends(longest)
            self.remove(longest)
            longest.transport.abort()
        return bool(stalled)

    # Sweeps ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sweep for ever."""
        settings = self._settings
        pause = min(1.0, settings.head_timeout_s / 4, settings.rate_window_s / 4)
        while True:
            await asyncio.sleep(pause)
            self.sweep()

    def sweep(self) -> None:
        """Look at every connection once."""
        for connection in list(self._connections):
            self._look_at(connection)
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if self._clock() - self._logged >= _LOG_SECONDS:
                self._logged = self._clock()
                count = len(self._connections)
                _log.warning("no connection can be accepted now: %s; there are %d", error.strerror, count)
            while self.close_stalled(HEAD) or self.close_stalled(IDLE):
                pass

    def _look_at(self, connection: Connection) -> None:
        now, seen, phase, moved = self._clock(), connection.sweep, connection.phase(), connection.moved()
        if moved != seen.last or phase != seen.phase:
            seen.last, seen.last_moved = moved, now
        if phase != seen.phase:
            seen.phase, seen.begun, seen.at_begin = phase, now, moved
            return
        settings, seconds = self._settings, now - seen.begun
        if phase[0] == HEAD and seconds >= settings.head_timeout_s:
            connection.refuse(RequestTimeout(f"the request's head did not arrive within {settings.head_timeout_s:g} s"))
        if phase[0] not in (BODY, ANSWER):
            return
        slow = seconds >= settings.rate_window_s and moved - seen.at_begin < settings.least_rate * seconds
        if not slow and now - seen.last_moved < settings.rate_window_s:
            if seconds >= settings.rate_window_s:
                seen.begun, seen.at_begin = now, moved
        elif phase[0] == BODY:
            rate = f"{settings.least_rate} bytes a second over {settings.rate_window_s:g} s (ENDPOINT_LEAST_RATE)"
            connection.refuse(RequestTimeout(f"the body arrived at less than {rate}"))
        else:
            connection.transport.abort()
