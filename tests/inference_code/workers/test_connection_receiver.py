"""A process's end of the channel, and the parent's, without a server: nothing is lost where one side is slow."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
from pathlib import Path

from inference_code.workers.channel import CONNECTION, ENDED, LEAVING, READY, TAKEN, WorkerContext
from inference_code.workers.connection_receiver import Connections
from inference_code.workers.worker_process import WorkerProcess


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(data)


def pair() -> tuple[socket.socket, WorkerContext]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, WorkerContext(0, 1, theirs.detach(), 0, 0, Path())


def heard(channel: socket.socket) -> collections.Counter[bytes]:
    found = b""
    with contextlib.suppress(BlockingIOError):
        while piece := channel.recv(65536):
            found += piece
    return collections.Counter(bytes([one]) for one in found)


def test_a_parent_that_does_not_listen_for_a_while_learns_of_everything() -> None:
    """More connections come and end than messages about them fit into the channel."""

    async def run() -> collections.Counter[bytes]:
        channel, member = pair()
        connections = Connections(member, Echo)
        left, received = 1500, collections.Counter[bytes]()
        blocked = 0
        with channel:
            while left:
                one, other = socket.socketpair()
                with one, other:
                    try:
                        socket.send_fds(channel, [CONNECTION], [one.fileno()])
                        left -= 1
                    except BlockingIOError:
                        blocked += 1
                        if blocked % 50 == 0:  # it has long been waiting for us
                            received += heard(channel)
                await asyncio.sleep(0)
            while received[ENDED] < 1500:
                received += heard(channel)
                await asyncio.sleep(0.001)
            await connections.leave()
            return received + heard(channel)

    received = asyncio.run(asyncio.wait_for(run(), 30))
    assert received == {READY: 1, TAKEN: 1500, ENDED: 1500, LEAVING: 1}


def test_what_is_taken_is_answered_and_what_comes_after_leaving_is_not_touched() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        channel, member = pair()
        connections = Connections(member, Echo)
        first, second = socket.socketpair(), socket.socketpair()
        with channel, first[0], first[1], second[0], second[1]:
            socket.send_fds(channel, [CONNECTION], [first[1].fileno()])
            first[0].setblocking(False)
            await loop.sock_sendall(first[0], b"hello")
            assert await loop.sock_recv(first[0], 100) == b"hello"
            await connections.leave()
            socket.send_fds(channel, [CONNECTION], [second[1].fileno()])
            second[0].setblocking(False)
            await loop.sock_sendall(second[0], b"hello")
            await asyncio.sleep(0.05)
            assert heard(channel) == {READY: 1, TAKEN: 1, LEAVING: 1}
            assert second[1].recv(100) == b"hello"  # it is still there, for another process

    asyncio.run(asyncio.wait_for(run(), 30))


def test_the_parent_counts_what_a_process_has_and_takes_back_what_it_left() -> None:
    child = WorkerProcess(0, {})
    child.channel, theirs = socket.socketpair()
    child.channel.setblocking(False)
    connections = [socket.socket() for _ in range(4)]
    assert not child.offer(connections[0])  # it is not ready
    theirs.sendall(READY)
    assert child.receive()
    assert [child.offer(one) for one in connections] == [True] * 4
    theirs.sendall(TAKEN + TAKEN + ENDED)
    assert child.receive()
    assert (child.open, child.given, [one.fileno() >= 0 for one in connections]) == (3, 4, [False, False, True, True])
    theirs.sendall(TAKEN + LEAVING)
    theirs.close()
    child.close()  # as at its death: its last words count
    assert not child.has_room
    assert child.give_back() == connections[3:]
    connections[3].close()


def test_a_forked_process_that_holds_the_channel_holds_nobody_up() -> None:
    child = WorkerProcess(0, {})
    child.channel, theirs = socket.socketpair()
    child.channel.setblocking(False)
    theirs.sendall(READY)
    child.close()  # it has died, and `theirs` is still open
    assert child.served
    theirs.close()
