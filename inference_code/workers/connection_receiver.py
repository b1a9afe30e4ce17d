"""How a process among several gets its connections: from the parent, over the channel (channel.py)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from inference_code.workers.channel import ENDED, LEAVING, READY, TAKEN, WorkerContext

_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Connections:
    """Takes connections from the parent and gives them to protocols that `make` makes. On the event loop."""

    def __init__(self, worker: WorkerContext, make: Callable[[], Any]) -> None:
        self._channel = socket.socket(fileno=worker.channel)
        self._channel.setblocking(False)
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._unsent = b""
        self._taking = True
        self._arrived: socket.socket | None = None  # and the parent does not know yet
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._channel, self._read)
        self._notify(READY)

    async def leave(self) -> None:
        """Take none any more: the parent gives those that are on their way to another process.

        Returns when those that were taken have their protocols, so that uvicorn can end them like all others.
        """
        self._read()  # what the parent gave it before
        self._taking = False
        self._loop.remove_reader(self._channel)
        self._notify(LEAVING)
        await asyncio.gather(*self._tasks)

    def _read(self) -> None:
        while self._taking and not self._unsent:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1, _FLAGS)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:  # the parent is gone; `follow` sees to it
                self._taking = False
                self._loop.remove_reader(self._channel)
                return
            if descriptors:
                self._arrived = socket.socket(fileno=descriptors[0])
                self._notify(TAKEN)
            else:  # no file descriptor was free here: the parent closes the connection
                self._notify(TAKEN + ENDED)
            self._begin()

    def _begin(self) -> None:
        """Connect what has arrived, once the parent knows: of a process that dies it gives the rest to another."""
        connection = self._arrived
        if connection is not None and not self._unsent:
            self._arrived = None
            task = self._loop.create_task(self._connect(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket) -> None:
        ended = _Once(lambda: self._notify(ENDED))
        try:
            await self._loop.connect_accepted_socket(lambda: _with_close_callback(self._make(), ended), connection)
        except OSError:  # the client has closed it meanwhile
            connection.close()
            ended()

    def _notify(self, message: bytes) -> None:
        """Send, never waiting: what the channel does not hold now goes later, and nothing is taken until then."""
        self._unsent += message
        try:
            self._unsent = self._unsent[self._channel.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # the parent is gone; `follow` sees to it
            self._unsent = b""
        if self._unsent:
            self._loop.remove_reader(self._channel)
            self._loop.add_writer(self._channel, self._send_on)

    def _send_on(self) -> None:
        self._loop.remove_writer(self._channel)
        self._notify(b"")
        self._begin()
        if self._taking and not self._unsent:
            self._loop.add_reader(self._channel, self._read)


class _Once:
    """Calls what it was made with the first time that it is called."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


def _with_close_callback(protocol: Any, ended: Callable[[], None]) -> Any:
    """The same protocol, which calls `ended` when its connection is lost."""
    lost = protocol.connection_lost

    def connection_lost(error: Exception | None) -> None:
        try:
            lost(error)
        finally:
            ended()

    protocol.connection_lost = connection_lost
    return protocol
