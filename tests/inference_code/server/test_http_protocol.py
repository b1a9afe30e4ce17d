"""What the native server makes of the bytes of a connection; the test says in which pieces they come."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from inference_code.server.http_protocol import MAX_HEAD, WHOLE_BODY, http
from inference_code.server.traffic import Traffic
from inference_code.settings import Settings

pytest.importorskip("httptools")
LARGE = 1_000_000


class Wire(asyncio.Transport):
    """The server's end of a connection; `sent` is what it wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Line:
    """A connection to `app`."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app, http=http(2 * LARGE, Traffic(Settings())), log_level="warning", server_header=False
        )
        config.load()
        self.wire = Wire()
        self.protocol = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})  # type: ignore[call-arg,operator]
        self.protocol.connection_made(self.wire)

    async def receive(self, data: bytes) -> None:
        """The client's bytes arrive, in as few pieces as the server has room for; the service sees them."""
        while data and not self.wire.closed:
            room = self.protocol.get_buffer(-1)
            size = min(len(room), len(data))
            room[:size] = data[:size]
            del room
            self.protocol.buffer_updated(size)
            data = data[size:]
        for _ in range(5):
            await asyncio.sleep(0)


class Answering:
    """Answers with the number of bytes of a body; or without having looked at it."""

    def __init__(self, *, reads: bool) -> None:
        self._reads = reads
        self.bodies: list[weakref.ref[Any]] = []

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        whole = scope.get("extensions", {}).pop(WHOLE_BODY, None)
        if whole is not None:
            self.bodies.append(weakref.ref(whole.obj))
        size, more = 0, self._reads
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        said = str(size if whole is None or not self._reads else len(whole)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
        await send({"type": "http.response.body", "body": said})


def head(size: int) -> bytes:
    return b"POST /invocations HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size


def test_a_head_that_follows_another_request_may_come_in_pieces() -> None:
    """The bytes of the request before it are none of its own."""

    async def work() -> None:
        line = Line(Answering(reads=True))
        first = head(60_000) + bytes(60_000)
        second = b"POST /invocations HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\nContent-Length: 7\r\n\r\n"
        room = MAX_HEAD - len(first)
        await line.receive(first + second[:room])
        for piece in (second[room : room + 10], second[room + 10 : -1], second[-1:] + b"7 bytes"):
            await line.receive(piece)
        assert line.wire.sent.count(b"HTTP/1.1 200") == 2, line.wire.sent
        assert line.wire.sent.endswith(b"\r\n\r\n7")

    asyncio.run(work())


@pytest.mark.parametrize("before", [b"", head(5) + b"hello"])
@pytest.mark.parametrize("piece", [MAX_HEAD, 1000])
def test_a_head_without_end_is_refused(before: bytes, piece: int) -> None:
    async def work() -> None:
        line, sent = Line(Answering(reads=True)), 0
        await line.receive(before)
        await line.receive(b"GET /ping HTTP/1.1\r\nX: ")
        while not line.wire.closed and sent <= MAX_HEAD:
            await line.receive(b"x" * piece)
            sent += piece
        assert line.wire.closed
        assert b"HTTP/1.1 400" in line.wire.sent
        assert b"which is what is read at most" in line.wire.sent

    asyncio.run(work())


@pytest.mark.parametrize("arrived", [0, 1000, 300_000])
def test_a_large_body_is_thrown_away_once_its_request_is_answered(arrived: int) -> None:
    async def work() -> None:
        app = Answering(reads=False)
        line = Line(app)
        await line.receive(head(LARGE) + bytes(arrived))
        assert line.wire.sent.endswith(b"\r\n\r\n0")
        line.protocol.get_buffer(-1)
        assert [body() for body in app.bodies] == [None]
        await line.receive(bytes(LARGE - arrived) + head(3) + b"end")
        assert line.wire.sent.count(b"HTTP/1.1 200") == 2
        assert not line.wire.closed

    asyncio.run(work())


def test_a_tunnel_is_refused() -> None:
    async def work() -> None:
        line = Line(Answering(reads=True))
        await line.receive(b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
        assert line.wire.sent.startswith(b"HTTP/1.1 400")
        assert line.wire.closed

    asyncio.run(work())
