"""One process of the native server, as its parent (supervisor.py) sees it. What goes over the channel: channel.py."""

from __future__ import annotations

import collections
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from inference_code.workers.channel import CONNECTION, ENDED, LEAVING, READY, REFUSED, TAKEN, WorkerContext

_ON_THE_WAY = 64  # connections at most; what a socket pair holds for certain
_LATE_SECONDS = 0.2  # for a process to take a connection; it needs some milliseconds of its event loop


class WorkerProcess:
    """The process at place `index`, which may be one after the other. `environment` is its share."""

    def __init__(self, index: int, environment: Mapping[str, str]) -> None:
        self.index = index
        self.ready = False
        self.served = False  # was ever ready
        self.open = 0  # connections that it has, those on their way among them
        self.given = 0  # connections that it was ever given
        self.deaths: collections.deque[float] = collections.deque(maxlen=5)
        self.channel: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = environment
        self._on_the_way: collections.deque[tuple[float, socket.socket]] = (
            collections.deque()
        )  # given when, by monotonic
        self._refusal: bytes | None = None

    def start(self, command: Sequence[str], count: int, ended: int, turn: int, folder: Path) -> socket.socket:
        """Start the process; its end of the channel comes back. The rest: see WorkerContext."""
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        self.ready, self.served, self.open, self._refusal = False, False, 0, None
        with theirs:
            place = WorkerContext(self.index, count, theirs.fileno(), ended, turn, folder)
            self.process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
                [*command, "--worker-context", str(place)],
                pass_fds=(theirs.fileno(), ended, turn),
                env={**os.environ, **self._environment},
            )
        return self.channel

    @property
    def has_room(self) -> bool:
        """Whether it may be given a connection now."""
        return self.ready and len(self._on_the_way) < _ON_THE_WAY

    @property
    def rank(self) -> tuple[bool, int, int]:
        """The least is given the next connection: it is not stuck, and has the fewest, or had the fewest so far."""
        stuck = bool(self._on_the_way) and time.monotonic() - self._on_the_way[0][0] > _LATE_SECONDS
        return stuck, self.open, self.given

    def offer(self, connection: socket.socket) -> bool:
        """Give it a connection. False: it cannot take one now."""
        if not self.has_room or self.channel is None:
            return False
        try:
            socket.send_fds(self.channel, [CONNECTION], [connection.fileno()])
        except OSError:  # the channel is full, or the process has just died, which is noticed by itself
            return False
        self._on_the_way.append((time.monotonic(), connection))
        self.open += 1
        self.given += 1
        return True

    def receive(self) -> bool:
        """Handle what it sends. False: the channel is closed."""
        data = self._received()
        if data:
            self._handle(data)
        return data != b""

    def _received(self) -> bytes | None:
        """What has come over the channel: None for nothing yet, nothing for the end."""
        assert self.channel is not None  # noqa: S101  (it was started)
        try:
            return self.channel.recv(65536)
        except BlockingIOError:
            return None
        except OSError:  # it died, and left connections unread
            return b""

    def _handle(self, data: bytes) -> None:
        if self._refusal is not None:
            self._refusal += data
            return
        data, refuses, reason = data.partition(REFUSED)
        if refuses:
            self._refusal = reason
        for _ in range(data.count(TAKEN)):
            self._on_the_way.popleft()[1].close()
        self.open -= data.count(ENDED)
        if READY in data:
            self.ready = self.served = True
        if LEAVING in data:
            self.ready = False

    def give_back(self) -> list[socket.socket]:
        """The connections that it did not take, and never will."""
        given = [connection for _, connection in self._on_the_way]
        self._on_the_way.clear()
        self.open -= len(given)
        return given

    def close(self) -> None:
        """It has died: read what it sent last, and forget the channel."""
        if self.channel is not None:
            while data := self._received():  # not to its end: a process that it has forked may hold the channel, too
                self._handle(data)
            self.channel.close()
        self.ready, self.channel = False, None

    @property
    def refusal(self) -> str:
        """Why it cannot serve, in one line; empty where it gave no reason."""
        return (self._refusal or b"").decode(errors="replace").strip()
