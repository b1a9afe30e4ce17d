"""How the native server reads HTTP: with httptools where it is installed, with h11 (several times slower) where not.

h11 bounds the size of a request's head, httptools does not; here it does, by the same number of bytes.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING, Any

MAX_HEAD = 64 * 1024  # bytes of the request line and the headers together


def http() -> str | type[asyncio.Protocol]:
    """What uvicorn.Config takes as `http`."""
    return _bounded() if importlib.util.find_spec("httptools") is not None else "h11"


def _bounded() -> type[asyncio.Protocol]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415  (httptools is optional)

    class BoundedProtocol(HttpToolsProtocol):
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
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._in_head and not self.transport.is_closing():
                self._received += len(data)
                if self._received > MAX_HEAD:
                    self.send_400_response("The request's head is too large.")

        def _count(self, size: int) -> None:
            self._head += size
            if self._head > MAX_HEAD:
                raise ValueError("the request's head is too large")  # the parser makes it a 400

    return BoundedProtocol
