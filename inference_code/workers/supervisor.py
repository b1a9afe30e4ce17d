"""The parent of the native server's processes: `--processes N` for several, `--supervise` for one.

The parent holds the listening socket, starts the processes, and hands each connection to the one that has the fewest
(channel.py has their messages). A socket that they shared would be read by the process that wakes up first, and one
for each (SO_REUSEPORT) would spread connections by chance: with few connections some cores would idle.

A process that dies takes along the requests inside it. Connections that it had not taken yet go to another; while none
is ready they wait in the socket's backlog, and /ping with them, which therefore is never 200 for a model that is not
there. It is started again, unless it died five times within five minutes: then all end with 1, as they do when one
cannot serve. SIGTERM and SIGINT end them all at once. None outlives this process (WorkerContext.ended).

No torch here, and nothing that waits for a process.
"""

from __future__ import annotations

import collections
import errno
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inference_code.observability.log_writer import announce
from inference_code.workers.worker_process import WorkerProcess

BACKLOG = 2048
_WITHIN_SECONDS = 300.0
_LAST_SECONDS = 4.5  # after the drain: what a process takes at most to end, and a little
_RETRY_SECONDS = 0.1
_ACCEPTED_AT_ONCE = 64
_MOST_PATH = 90  # bytes; a unix socket's whole path has 107 at most
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def supervise(
    command: Sequence[str], listener: socket.socket, shares: Sequence[Mapping[str, str]], drain_s: float
) -> int:
    """Run `command` once for each of `shares` (variables of its environment) on a bound socket. Returns the exit code.

    drain_s: seconds that each process has for the requests inside it.
    """
    folder = Path(tempfile.mkdtemp(prefix="native-server-"))  # mode 0700
    ended, held = os.pipe()
    try:
        if len(os.fsencode(folder)) > _MOST_PATH:
            _log(f"the temporary folder {folder} has a path too long for a unix socket; set TMPDIR to a shorter one")
            return 1
        with tempfile.TemporaryFile(dir=folder) as turn, selectors.DefaultSelector() as selector:

            def start(worker: WorkerProcess) -> socket.socket:
                return worker.start(command, len(shares), ended, turn.fileno(), folder)

            return _Supervisor(
                listener, selector, [WorkerProcess(*one) for one in enumerate(shares)], start, drain_s
            ).run()
    finally:
        os.close(ended)
        os.close(held)
        shutil.rmtree(folder, ignore_errors=True)  # a process that had to be killed may just be writing there


class _Supervisor:
    """See the top of this file."""

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        children: Sequence[WorkerProcess],
        start: Callable[[WorkerProcess], socket.socket],
        drain_s: float,
    ) -> None:
        self._listener, self._selector, self._workers, self._start = listener, selector, children, start
        self._seconds = drain_s + _LAST_SECONDS
        self._waiting: collections.deque[socket.socket] = collections.deque()  # connections that no process could take
        self._signal = False
        self._announced = self._accepting = False
        self._paused_until = 0.0  # by time.monotonic
        self._ends: float | None = None  # when what still runs is killed; None: not ending
        self._code = 0
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it

    def run(self) -> int:
        """The loop. Returns the exit code once every process has ended."""
        woken, wakes = socket.socketpair()
        with woken, wakes:
            for one in (woken, wakes):
                one.setblocking(False)
            self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(4096))
            signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
            for number in _SIGNALS:
                signal.signal(number, self._on_signal)
            signal.signal(signal.SIGCHLD, lambda *_: None)  # it wakes the loop up
            try:
                for worker in self._workers:
                    self._begin(worker)
                while any(worker.process is not None for worker in self._workers):
                    for key, _ in self._selector.select(self._timeout()):
                        key.data()
                    self._look_around()
            finally:
                signal.set_wakeup_fd(-1)
        return self._code

    def _on_signal(self, *_: object) -> None:
        self._signal = True

    def _timeout(self) -> float | None:
        if self._ends is not None:
            return max(0.0, self._ends - time.monotonic())
        return _RETRY_SECONDS if self._waiting or self._paused_until > time.monotonic() else None

    def _look_around(self) -> None:
        """What may have to be done after anything has happened."""
        if self._signal and self._ends is None:
            self._end(0)
        if self._ends is not None and time.monotonic() >= self._ends:
            self._kill()
        for worker in self._workers:
            code = worker.process.poll() if worker.process is not None else None
            if code is not None:
                self._died(worker, code)
        if self._ends is None:
            self._hand_over()
            self._announce()
            self._listen()

    # Processes ------------------------------------------------------------------------------------------------------

    def _begin(self, worker: WorkerProcess) -> None:
        channel = self._start(worker)
        self._selector.register(channel, selectors.EVENT_READ, lambda: self._receive(worker, channel))

    def _receive(self, worker: WorkerProcess, channel: socket.socket) -> None:
        if worker.channel is not channel:  # it died in this round
            return
        if not worker.receive():
            self._selector.unregister(channel)  # its end comes by SIGCHLD
            worker.ready = False
        elif not worker.ready:
            self._take_back(worker)  # it is leaving

    def _take_back(self, worker: WorkerProcess) -> None:
        for connection in worker.give_back():
            if self._ends is None:
                self._waiting.append(connection)
            else:
                connection.close()

    def _died(self, worker: WorkerProcess, code: int) -> None:
        channel = worker.channel
        if channel is not None and channel in self._selector.get_map():
            self._selector.unregister(channel)
        worker.close()
        worker.process = None
        self._take_back(worker)
        if self._ends is not None:
            self._code = max(self._code, code, 0)
            return
        name = "the server" if len(self._workers) == 1 else f"process {worker.index} of the server"
        if worker.refusal or (code in (1, 2) and not worker.served):
            if worker.refusal:
                _log(worker.refusal)
            self._end(code or 1)
            return
        _log(f"{name} was ended by signal {-code}" if code < 0 else f"{name} ended with exit code {code}")
        worker.deaths.append(time.monotonic())
        if len(worker.deaths) == worker.deaths.maxlen and worker.deaths[-1] - worker.deaths[0] < _WITHIN_SECONDS:
            _log(f"it ended so {worker.deaths.maxlen} times within {_WITHIN_SECONDS:g} s, and is not started again")
            self._end(1)
            return
        self._begin(worker)

    def _end(self, code: int) -> None:
        """Have every process drain and end; new connections are refused."""
        self._code, self._ends = code, time.monotonic() + self._seconds
        if self._accepting:
            self._selector.unregister(self._listener)
            self._accept()  # those who have connected before
        self._listener.close()
        for connection in self._waiting:
            connection.close()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.terminate()

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                _log(f"process {worker.index} did not end within {self._seconds:g} s, and is killed")
                worker.process.kill()
        self._code, self._ends = max(self._code, 1), time.monotonic() + _RETRY_SECONDS

    # Connections ----------------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        """The port is open once every process has answered its warm-up."""
        if not self._announced and all(worker.ready for worker in self._workers):
            self._announced = True
            host, port = self._listener.getsockname()[:2]
            self._listener.listen(BACKLOG)
            announce(f"listening on http://{host}:{port}")

    def _listen(self) -> None:
        """Accept while a process can take a connection; otherwise they wait in the backlog."""
        able = not self._waiting and any(worker.has_room for worker in self._workers)
        wanted = self._announced and able and self._paused_until <= time.monotonic()
        if wanted and not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        elif self._accepting and not wanted:
            self._selector.unregister(self._listener)
        self._accepting = wanted

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                _log(f"no connection can be accepted now: {error.strerror}")
                self._paused_until = time.monotonic() + 1.0
                return
            self._waiting.append(connection)
            self._hand_over()
            if self._waiting:
                return

    def _hand_over(self) -> None:
        """Give each waiting connection to a process, if one can take it."""
        while self._waiting:
            for worker in sorted(self._workers, key=lambda one: one.rank):
                if worker.offer(self._waiting[0]):
                    self._waiting.popleft()
                    break
            else:
                return


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
