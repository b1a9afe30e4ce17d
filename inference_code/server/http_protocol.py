"""How the native server reads HTTP: with httptools where it is installed, with h11 (several times slower) where not.

h11 bounds the size of a request's head, httptools does not; here it does, by the same number of bytes. What is no HTTP
never reaches the service: uvicorn answers it with 400, here with our JSON instead of plain text.

With httptools, a large body whose length is known is received straight into the memory that the handler reads it from.
ASGI alone would have it copied four times on its way, in pieces, each of which wakes the service up. What comes after
its answer is thrown away: it must not be that the requests which a full server refuses fill its memory.

A client may ask for another protocol (Java's asks for h2c with every request); it is answered in HTTP/1.1. httptools
would take the body of such a request for the other protocol's first bytes: the head is read again without the question.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_code.codecs.json_text import JSON
from inference_code.errors import BadRequest

# In scope["extensions"], where there is one: the whole body, a memoryview. Its messages carry none of it, and end once
# it is complete.
WHOLE_BODY = "inference_code.whole_body"
MAX_HEAD = 64 * 1024  # bytes of the request line and the headers together
_UNREADABLE = "this is not HTTP/1.1 that can be read; POST /invocations, GET /ping"
_LARGE = 64 * 1024  # bytes; a smaller body mostly arrives together with its head
_NOTHING = memoryview(b"")
_READ = 64 * 1024  # bytes that are read at once, of what is no large body
_TOO_LARGE = f"the request's head has more than {MAX_HEAD} bytes, which is what is read at most"


def http(largest: int) -> Any:
    """What uvicorn.Config takes as `http`. largest: bytes of a body that is accepted."""
    if importlib.util.find_spec("httptools") is None:
        return _plain()
    return functools.partial(_Receiver, _bounded(), largest, bytearray(_READ))


class _Receiver(asyncio.BufferedProtocol):
    """Reads for a protocol of uvicorn's: heads and small bodies into `shared`, a large body into memory of its own.

    `shared` can belong to every connection of an event loop: what was read is handed on before anything else is.
    """

    def __init__(self, protocol: type[Any], largest: int, shared: bytearray, **options: Any) -> None:
        self._inner = protocol(**options)
        self._inner.largest = largest
        self._shared = memoryview(shared)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand on, as all of these."""
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._inner.connection_lost(exc)

    def eof_received(self) -> None:
        """The client sends no more."""
        self._inner.eof_received()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._inner.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio's)
        """Where the next bytes belong."""
        left: int = self._inner.left
        if not left:
            return self._shared
        rest: memoryview | None = self._inner.rest()
        return self._shared[:left] if rest is None else rest

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were read into it."""
        if self._inner.left:
            self._inner.filled(nbytes)
        else:
            self._inner.data_received(self._shared[:nbytes])


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

        uvicorn marks only the last that was read, which is not the one that is being answered when several were sent
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


class _LargeBodies:
    """In front of uvicorn's protocol on httptools: gives a large body memory of its own, which _Receiver fills."""

    if TYPE_CHECKING:
        transport: Any
        headers: list[tuple[bytes, bytes]]
        scope: Any
        parser: Any
        cycle: Any
        url: bytes
        _unset_keepalive_if_required: Any
    largest = 0  # bytes of a body that is accepted
    left = 0  # bytes of a large body that have not been received, once its head is parsed
    _body: memoryview | None = None  # a large body, from its head to its end
    _missing = _NOTHING  # of it, what has not been received
    between = True  # requests: none has begun that is not received to its end

    def on_headers_complete(self) -> None:
        """A body follows, or the end."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")  # the parser makes it a 400
            return  # to without_upgrade
        size = self._length()
        if _LARGE <= size <= self.largest:
            memory: Any = np.empty(size, np.uint8)
            self._body = self._missing = memoryview(memory)
            self.scope["extensions"] = {WHOLE_BODY: self._body}
        super().on_headers_complete()  # type: ignore[misc]

    def _length(self) -> int:
        """Of the body, as its head says; -1 for one in chunks."""
        found = -1
        for name, value in self.headers:
            if name == b"transfer-encoding":
                return -1
            if name == b"content-length":
                found = int(value)  # the parser took it for a number
        return found

    def on_body(self, body: bytes) -> None:
        """What the parser saw of the body."""
        if self._body is None:
            super().on_body(body)  # type: ignore[misc]
            return
        self._missing[: len(body)] = body
        self._missing = self._missing[len(body) :]

    def on_message_complete(self) -> None:
        """The body is complete, or there is none."""
        if self.parser.should_upgrade():
            return
        self._body, self.between = None, True
        super().on_message_complete()  # type: ignore[misc]

    def parsed(self) -> None:
        """Everything was parsed that was received: if a large body has begun, the rest of it comes."""
        if self._body is not None and not self.transport.is_closing():
            self.left = len(self._missing)
        else:
            self._missing = _NOTHING  # a view of no bytes keeps the body's memory, too

    def rest(self) -> memoryview | None:
        """Where the rest of a large body belongs; None once the request is answered or refused."""
        if self.cycle.response_complete or not self.scope.get("extensions"):
            self._body, self._missing = None, _NOTHING
            return None
        return self._missing

    def filled(self, size: int) -> None:
        """`size` bytes of a large body were received."""
        self._unset_keepalive_if_required()
        self.left -= size
        self._missing = self._missing[size:] if self.left else _NOTHING
        if not self.left:
            self.renew()  # the parser still waits for the bytes that it never saw
            self.on_message_complete()

    def without_upgrade(self) -> bytes:
        """The head that was read last, for a new parser."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] != b"upgrade"]
        self.renew()
        return b"\r\n".join([*lines, b"", b""])

    def renew(self) -> None:
        """Make a new parser, which begins with a request."""
        self.parser = type(self.parser)(self)
        if hasattr(self.parser, "set_dangerous_leniencies"):  # since httptools 0.6.3; as uvicorn makes its own
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)


class _Heads(_Careful, _LargeBodies):
    """In front of uvicorn's protocol on httptools: answers 400 and closes as soon as a head is larger than MAX_HEAD."""

    broken: type[Exception]  # httptools' own
    upgraded: type[Exception]
    _in_head = False
    _head = 0  # bytes of the head so far, of what the parser has reported
    _begun = 0  # heads that began in what was received last
    _received = 0  # bytes received while this head was not complete

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head, self._received = True, 0, 0
        self._begun, self.between = self._begun + 1, False
        super().on_message_begin()  # type: ignore[misc]

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)  # type: ignore[misc]

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or one after a body in chunks."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)  # type: ignore[misc]

    def on_headers_complete(self) -> None:
        """The head ends."""
        self._in_head = False
        known = (*self._earlier, self.cycle)
        self._earlier = tuple(one for one in known if one is not None and not one.response_complete)
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Any bytes but those of a large body after its first. In place of uvicorn's, which ends at an upgrade."""
        self._unset_keepalive_if_required()
        between, self._begun = self.between, 0
        try:
            self._feed(data)
        except self.broken:
            self.send_400_response("")
        self.parsed()
        if self._in_head and not self.transport.is_closing():
            # What the head shares with the end of another request may be the other's.
            if not self._begun or (between and self._begun == 1):
                self._received += len(data)
            if self._received > MAX_HEAD:
                self.refuse(_TOO_LARGE)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except self.upgraded as upgrade:  # at the end of a head
                data = self.without_upgrade() + data[upgrade.args[0] :]

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what cannot be read, and close."""
        self.refuse(_TOO_LARGE if self._head > MAX_HEAD else _UNREADABLE)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise ValueError("the request's head is too large")  # the parser makes it a 400


def _bounded() -> type[asyncio.Protocol]:
    from httptools import HttpParserError, HttpParserUpgrade  # noqa: PLC0415  (httptools is optional)
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415

    class BoundedProtocol(_Heads, HttpToolsProtocol):
        """httptools, with our errors, bounded heads, and large bodies in memory of their own."""

        broken, upgraded = HttpParserError, HttpParserUpgrade

    return BoundedProtocol
