"""How the native server reads HTTP: with httptools where it is installed, with h11 (several times slower) where not.

h11 bounds the size of a request's head, httptools does not; here it does, by the same number of bytes. What is no HTTP
never reaches the service: uvicorn answers it with 400, here with our JSON instead of plain text.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING, Any

from inference_code.codecs.text import JSON
from inference_code.errors import BadRequest

MAX_HEAD = 64 * 1024  # bytes of the request line and the headers together
_UNREADABLE = "this is not HTTP/1.1 that can be read; POST /invocations, GET /ping"
_TOO_LARGE = f"the request's head has more than {MAX_HEAD} bytes, which is what is read at most"


def http() -> type[asyncio.Protocol]:
    """What uvicorn.Config takes as `http`."""
    return _bounded() if importlib.util.find_spec("httptools") is not None else _plain()


class _Careful:
    """In front of either of uvicorn's protocols: our errors, and no answer to a connection that is closed."""

    if TYPE_CHECKING:
        transport: Any
        cycle: Any
    _earlier: tuple[Any, ...] = ()  # requests of this connection that were not answered when the next was read

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's words, for which we have our own)
        """Refuse what cannot be read, and close."""
        self.refuse(_UNREADABLE)

    def refuse(self, detail: str) -> None:
        """400 with `detail`; within an answer that is under way there is no place to say so."""
        if self.cycle is None or self.cycle.response_complete:
            body = BadRequest(detail).body()
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()
        self._gone()

    def eof_received(self) -> None:
        """The client sends no more, and the transport closes itself: uvicorn learns of it only somewhat later."""
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._gone()
        super().connection_lost(exc)  # type: ignore[misc]

    def _gone(self) -> None:
        """Have the requests that are under way see their client gone: an answer written now would raise RuntimeError.

        uvicorn tells only the last that was read, which is not the one that is being answered when several were sent
        without waiting.
        """
        for cycle in (*self._earlier, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()


def _plain() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415  (only where httptools is not there)

    class PlainProtocol(_Careful, H11Protocol):
        """h11, with our errors."""

    return PlainProtocol


def _bounded() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415  (httptools is optional)

    class BoundedProtocol(_Careful, HttpToolsProtocol):
        """Answers 400 and closes as soon as a head is larger than MAX_HEAD."""

        if TYPE_CHECKING:
            transport: Any
        _in_head = False
        _head = 0  # bytes of the head so far
        _received = 0  # bytes received while no head was complete

        def on_message_begin(self) -> None:
            self._in_head, self._head, self._received = True, 0, 0
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value) + 4)
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._in_head = False
            known = (*self._earlier, self.cycle)
            self._earlier = tuple(one for one in known if one is not None and not one.response_complete)
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head and not self.transport.is_closing():
                self._received += len(data)
                if self._received > MAX_HEAD:
                    self.refuse(_TOO_LARGE)

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002
            self.refuse(_TOO_LARGE if self._head > MAX_HEAD else _UNREADABLE)

        def _count(self, size: int) -> None:
            self._head += size
            if self._head > MAX_HEAD:
                raise ValueError("the request's head is too large")  # the parser makes it a 400

    return BoundedProtocol
