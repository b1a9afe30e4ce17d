"""Keeps the native server in service: `python -m inference_code.server --supervise ...`.

The supervisor holds the listening socket and starts the server as a child. When the child is killed, only the requests
inside it fail: new connections wait in the socket's backlog until the next child has loaded the model, and so does
/ping, which therefore never says 200 for a model that is not there. A child that cannot serve (exit code 1) is not
started again, nor one that was killed five times within five minutes. SIGTERM and SIGINT are passed on.
"""

from __future__ import annotations

import collections
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

_MOST, _WITHIN_SECONDS = 5, 300.0


def supervise(command: Sequence[str], listener: socket.socket) -> int:
    """Run `command` with `--inherit SOCKET,PIPE` until it ends by itself. Returns the exit code.

    The child inherits both file descriptors: the listening socket, and the reading end of a pipe that ends when this
    process does, so that no child is left behind.
    """
    ended, held = os.pipe()
    state = _State(listener)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, state.end)
    deaths: collections.deque[float] = collections.deque(maxlen=_MOST)
    inherit = f"{listener.fileno()},{ended}"
    descriptors = (listener.fileno(), ended)
    try:
        while True:
            code = state.run([*command, "--inherit", inherit], descriptors)
            if state.ending or code in (0, 1, 2):
                return max(code, 0)
            _say(f"the server was ended by signal {-code}" if code < 0 else f"the server ended with exit code {code}")
            deaths.append(time.monotonic())
            if len(deaths) == _MOST and deaths[-1] - deaths[0] < _WITHIN_SECONDS:
                _say(f"it ended so {_MOST} times within {_WITHIN_SECONDS:g} s, and is not started again")
                return 1
    finally:
        os.close(ended)
        os.close(held)


class _State:
    """The child that runs, and whether all shall end."""

    def __init__(self, listener: socket.socket) -> None:
        self.ending = False
        self._listener = listener
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], descriptors: Sequence[int]) -> int:
        """Start the child and wait for its end. Returns its exit code, negative for a signal."""
        if self.ending:
            return 0
        self._child = subprocess.Popen(command, pass_fds=descriptors)  # noqa: S603  (our own interpreter and module)
        if self.ending:  # the signal came while the child was being started
            self._child.terminate()
        return self._child.wait()

    def end(self, number: int, _: FrameType | None) -> None:
        """Signal handler: close our hold of the socket, so that new connections are refused, and pass the signal on."""
        self.ending = True
        self._listener.close()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def follow(descriptor: int, end: Callable[[], None]) -> None:
    """In the child: call `end` when the supervisor is gone."""

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        end()

    threading.Thread(target=wait, name="supervisor", daemon=True).start()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
