"""How the native server reads HTTP: with httptools where it is installed, with h11 (several times slower) where not.

h11 bounds the size of a request's head, httptools does not; here it does, by the same number of bytes. What is no HTTP
never reaches the service: uvicorn answers it with 400, here with our JSON instead of plain text.

With httptools, a large body whose length is known is received straight into the memory that the handler reads it from.
ASGI alone would have it copied four times on its way, in pieces, each of which wakes the service up. What comes after
its answer is thrown away: it must not be that the requests which a full server refuses fill its memory.

What is broken after its head, or too slow (traffic.py), reaches the service as scope[REFUSAL], so that the error is
answered and recorded as every other. A client that has closed its side of the connection may still read: what it has
asked in full is answered, and until then it is asked to go on by `100 Continue`, which a client that has gone resets.

A client may ask for another protocol (Java's asks for h2c with every request); it is answered in HTTP/1.1. httptools
would take the body of such a request for the other protocol's first bytes: the head is read again without the question.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import importlib.util
import select
import sys
import termios
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_code.codecs.json_text import JSON
from inference_code.errors import BadRequest, EndpointError
from inference_code.server.traffic import ANSWER, BODY, CONNECTION, HEAD, IDLE, Sweep, Traffic

# In scope["extensions"], where there is one: the whole body, a memoryview. Its messages carry none of it, and end once
# it is complete.
WHOLE_BODY = "inference_code.whole_body"
MAX_HEAD = 64 * 1024  # bytes of the request line and the headers together
_UNREADABLE = "this is not HTTP/1.1 that can be read; POST /invocations, GET /ping"
REFUSAL = "inference_code.refusal"  # in a scope: the EndpointError that ends its body
LINGER_SECONDS = 0.5  # after SIGTERM, in which a client that is being answered may send its next request
_PROBE_SECONDS = 0.25
_READ_SECONDS = 0.01  # in which the event loop reads what has arrived
_LARGE = 64 * 1024  # bytes; a smaller body mostly arrives together with its head
_NOTHING = memoryview(b"")
_READ = 64 * 1024  # bytes that are read at once, of what is no large body
_TOO_LARGE = f"the request's head has more than {MAX_HEAD} bytes, which is what is read at most"


def http(largest: int, traffic: Traffic) -> Any:
    """What uvicorn.Config takes as `http`. largest: bytes of a body that is accepted."""
    if importlib.util.find_spec("httptools") is None:
        return functools.partial(_plain(), traffic=traffic)
    return functools.partial(_Receiver, functools.partial(_bounded(), traffic=traffic), largest, bytearray(_READ))


class _Receiver(asyncio.BufferedProtocol):
    """Reads for a protocol of uvicorn's: heads and small bodies into `shared`, a large body into memory of its own.

    `shared` can belong to every connection of an event loop: what was read is handed on before anything else is.
    """

    def __init__(self, protocol: Any, largest: int, shared: bytearray, **options: Any) -> None:
        self._inner = protocol(**options)
        self._inner.largest = largest
        self._shared = memoryview(shared)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand on, as all of these."""
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._inner.connection_lost(exc)

    def eof_received(self) -> bool:
        """The client sends no more."""
        return bool(self._inner.eof_received())

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
        self._inner.received += nbytes
        if self._inner.left:
            self._inner.filled(nbytes)
        else:
            self._inner.data_received(self._shared[:nbytes])


class _Careful:
    """In front of either of uvicorn's protocols: our errors, the bounds of traffic.py, and no request that is lost."""

    if TYPE_CHECKING:
        transport: Any
        cycle: Any
        flow: Any
        loop: asyncio.AbstractEventLoop
        app_state: dict[str, Any]
        sweep: Sweep
    received = 0  # bytes
    body_bytes = answer_bytes = 0  # see traffic.Connection
    _drained = 0  # how often the client has read what was written, down to what may wait
    _earlier: tuple[Any, ...] = ()  # requests of this connection that were not answered when the next was read
    _refused = False  # the connection is read no further
    _last: EndpointError | None = None  # what it is answered once all before it are
    _ending = False
    _half_closed = False

    def __init__(self, *, traffic: Traffic, **options: Any) -> None:
        super().__init__(**options)
        self.traffic = traffic

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        self.app_state = {**self.app_state, CONNECTION: self}
        super().connection_made(transport)  # type: ignore[misc]
        self.traffic.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._gone()
        self.app_state = {}
        self.traffic.remove(self)
        super().connection_lost(exc)  # type: ignore[misc]

    def in_message(self) -> str | None:
        """HEAD or BODY of a request that is not received whole; None between requests."""
        raise NotImplementedError

    def unanswered(self) -> list[Any]:
        """The requests that were read and have no whole answer, in order."""
        return [one for one in (*self._earlier, self.cycle) if one is not None and not one.response_complete]

    # What is broken -------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's words, for which we have our own)
        """Refuse what cannot be read, and close."""
        self.refuse(BadRequest(_UNREADABLE))

    def refuse(self, error: EndpointError) -> None:
        """Answer with `error` after all that was read before, and close; within an answer there is no place for it."""
        if self._refused or self.transport.is_closing():
            return
        self._refused, cycle, left = True, self.cycle, self.unanswered()
        if cycle in left and cycle.more_body:
            cycle.scope[REFUSAL] = error
            cycle.more_body = False
            cycle.message_event.set()
            return
        if self.in_message() != BODY and self.received:  # the body of a request that has its answer gets no other
            self._last = error
        if not left:
            self._end()

    def _end(self) -> None:
        error = self._last
        if error is not None:
            body = error.body()
            head = f"HTTP/1.1 {error.status_code} {error.phrase}\r\ncontent-type: {JSON}\r\n"
            head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()

    def on_response_complete(self) -> None:
        """An answer has been written."""
        super().on_response_complete()  # type: ignore[misc]
        if self.transport.is_closing() or self.unanswered():
            return
        if self._refused:
            self._end()
        elif self._half_closed:
            self.transport.close()
        elif self._ending:
            self.shutdown()

    # The end --------------------------------------------------------------------------------------------------------

    def eof_received(self) -> Any:
        """The client sends no more. True: it stays connected, for its answers."""
        if self.in_message() == BODY or not self.unanswered():
            self._gone()
            return False
        self._half_closed = True
        self.loop.call_later(_PROBE_SECONDS, self._probe)
        return True

    def _probe(self) -> None:
        """Write what a client has to skip (https://www.rfc-editor.org/rfc/rfc9110#section-15.2), to see if it is there.

        One that has gone answers with a reset, and the next time this is noticed.
        """
        left = self.unanswered()
        if not left or self.transport.is_closing():
            return
        if left[0].scope["http_version"] == "1.1" and not left[0].response_started:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.loop.call_later(_PROBE_SECONDS, self._probe)

    def shutdown(self) -> None:
        """SIGTERM: the connection closes after the answers to all that the client has sent, or sends in a moment.

        Those say `Connection: close`, by is_last.
        """
        self._ending = True
        if not self.unanswered():
            self.loop.call_later(LINGER_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        if self.transport.is_closing() or self.unanswered():
            return
        if self.in_message() == BODY and not self._refused:  # of a request that is answered
            self.loop.call_later(LINGER_SECONDS, self._close_idle)
        elif self._has_unread():
            self.loop.call_later(_READ_SECONDS, self._close_idle)
        else:
            self.transport.close()

    def is_last(self) -> bool:
        """Whether the request that is being answered is the last that the client has sent."""
        return len(self.unanswered()) <= 1 and self.in_message() is None and not self._has_unread()

    def _has_unread(self) -> bool:
        stream = self.transport.get_extra_info("socket")
        if stream is None or self._half_closed:
            return False
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _gone(self) -> None:
        """Have the requests that are under way see their client gone: an answer written now would raise RuntimeError.

        uvicorn marks only the last that was read, which is not the one that is being answered when several were sent
        without waiting.
        """
        for cycle in self.unanswered():
            cycle.disconnected = True
            cycle.message_event.set()

    # What traffic.py looks at ---------------------------------------------------------------------------------------

    def resume_writing(self) -> None:
        """The client has read enough."""
        self._drained += 1
        super().resume_writing()  # type: ignore[misc]

    def phase(self) -> tuple[str, object]:
        """What is waited for. A body that is not read meanwhile (requests before it are answered) is not late."""
        if self.transport.get_write_buffer_size():
            return ANSWER, (self._drained, id(self.cycle))
        message = self.in_message()
        if message == BODY and not self.flow.read_paused:
            return BODY, id(self.cycle)
        if not self.unanswered() and (message == HEAD or self.cycle is None):
            return HEAD, id(self.cycle)
        return IDLE, id(self.cycle)

    def moved(self) -> int:
        """Bytes received, less those that wait to be sent here, or in the kernel to be read by the client."""
        waiting, stream = int(self.transport.get_write_buffer_size()), self.transport.get_extra_info("socket")
        if waiting and stream is not None:
            queued = fcntl.ioctl(stream.fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += int.from_bytes(queued, sys.byteorder)
        return self.received - waiting


def _plain() -> Any:
    import h11  # noqa: PLC0415  (only where httptools is not there)
    from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415

    class PlainProtocol(_Careful, H11Protocol):
        """h11, with our errors."""

        _in_body = False  # when it was last looked

        def data_received(self, data: bytes) -> None:
            """Any bytes."""
            self.received += len(data)
            if not self._refused:
                self._in_body = self.conn.their_state is h11.SEND_BODY
                super().data_received(data)
                if self.conn.their_state is h11.SEND_BODY:
                    self.traffic.body_received(self, len(data))
                elif self.body_bytes:
                    self.traffic.body_received(self, -self.body_bytes)

        def in_message(self) -> str | None:
            """By h11's state; after an error, as it was before."""
            if self.conn.their_state is h11.SEND_BODY or (self.conn.their_state is h11.ERROR and self._in_body):
                return BODY
            return HEAD if self.conn.trailing_data[0] else None

    return PlainProtocol


class _LargeBodies:
    """In front of uvicorn's protocol on httptools: gives a large body memory of its own, which _Receiver fills."""

    if TYPE_CHECKING:
        transport: Any
        headers: list[tuple[bytes, bytes]]
        scope: Any
        parser: Any
        cycle: Any
        traffic: Traffic
        url: bytes
        body_bytes: int
        _unset_keepalive_if_required: Any
    largest = 0  # bytes of a body that is accepted
    left = 0  # bytes of a large body that have not been received, once its head is parsed
    _body: memoryview | None = None  # a large body, from its head to its end
    _missing = _NOTHING  # of it, what has not been received
    between = True  # requests: none has begun that is not received to its end
    _chunked = False

    def on_headers_complete(self) -> None:
        """A body follows, or the end."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")  # the parser makes it a 400
            return  # to without_upgrade
        size = self._length()
        self._chunked = size < 0
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
            if self._chunked:
                self.traffic.body_received(self, len(body))  # type: ignore[arg-type]
            return
        self._missing[: len(body)] = body
        self._missing = self._missing[len(body) :]

    def on_message_complete(self) -> None:
        """The body is complete, or there is none."""
        if self.parser.should_upgrade():
            return
        self._body, self.between = None, True
        if self.body_bytes:
            self.traffic.body_received(self, -self.body_bytes)  # type: ignore[arg-type]
        super().on_message_complete()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more. It is part of reference cycles, in which a body would stay for long."""
        self._body, self._missing = None, _NOTHING
        super().connection_lost(exc)  # type: ignore[misc]

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
            self.traffic.body_received(self, -self.body_bytes)  # type: ignore[arg-type]
            return None
        return self._missing

    def filled(self, size: int) -> None:
        """`size` bytes of a large body were received."""
        self._unset_keepalive_if_required()
        self.left -= size
        self._missing = self._missing[size:] if self.left else _NOTHING
        if self._body is not None:
            self.traffic.body_received(self, size)  # type: ignore[arg-type]
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
        if not self.parser.should_upgrade():
            self._earlier = tuple(self.unanswered())
        super().on_headers_complete()
        self._in_head = False

    def data_received(self, data: bytes) -> None:
        """Any bytes but those of a large body after its first. In place of uvicorn's, which ends at an upgrade."""
        if self._refused:
            return
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
                self.refuse(BadRequest(_TOO_LARGE))

    def in_message(self) -> str | None:
        """By what the parser has reported."""
        return None if self.between else HEAD if self._in_head else BODY

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except self.upgraded as upgrade:  # at the end of a head
                data = self.without_upgrade() + data[upgrade.args[0] :]

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what cannot be read, and close."""
        self.refuse(BadRequest(_TOO_LARGE if self._head > MAX_HEAD else _UNREADABLE))

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise ValueError("the request's head is too large")  # the parser makes it a 400


def _bounded() -> Any:
    from httptools import HttpParserError, HttpParserUpgrade  # noqa: PLC0415  (httptools is optional)
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415

    class BoundedProtocol(_Heads, HttpToolsProtocol):
        """httptools, with our errors, bounded heads, and large bodies in memory of their own."""

        broken, upgraded = HttpParserError, HttpParserUpgrade

    return BoundedProtocol
