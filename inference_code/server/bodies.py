"""Reading a request's body: its size, its time, and a client that closes the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

from inference_code.errors import SHUTTING_DOWN, RequestTimeout, TooLarge, Unavailable
from inference_code.server.http_protocol import REFUSAL, WHOLE_BODY
from inference_code.server.timeouts import CancelAfter, Receive

_DISCARD_SECONDS = 10.0
_DISCARD_SHORT_SECONDS = 1.0  # the same, once the server ends, or when the body was too slow already


class ClientGoneError(Exception):
    """The client closed the connection before its response."""


class BodyReader:
    """Reads bodies within a limit and a time; `end` ends every wait for what clients still have to send."""

    def __init__(self, limit: int, timeout: float) -> None:
        """limit: bytes; timeout: seconds."""
        self._limit, self._timeout = limit, timeout
        self._waits: set[CancelAfter] = set()
        self._ended = False

    async def read(
        self, headers: Mapping[str, str], scope: MutableMapping[str, Any], receive: Receive
    ) -> bytes | memoryview:
        """The whole body, given up as soon as it is larger than the limit or late.

        Raises TooLarge, RequestTimeout, Unavailable after `end`, and ClientGoneError.
        """
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._limit:
            raise TooLarge(f"the body has {declared[:20]} bytes; at most {self._limit} are read")
        late = CancelAfter(self._timeout, self._waits)
        try:
            return await self._read(scope, receive)
        except asyncio.CancelledError:
            if not late.came():
                raise
            if self._ended:
                raise Unavailable(SHUTTING_DOWN, retry_after=1) from None
            raise RequestTimeout(f"the body did not arrive within {self._timeout:g} s") from None
        finally:
            late.end()

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes | memoryview:
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if REFUSAL in scope:
                raise scope[REFUSAL]
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._limit:
                raise TooLarge(f"the body has more than {self._limit} bytes, which is what is read at most")
            chunks.append(chunk)
            if not message.get("more_body", False):
                whole: memoryview | None = scope.get("extensions", {}).pop(WHOLE_BODY, None)
                if whole is not None:
                    return whole
                return b"".join(chunks) if len(chunks) > 1 else chunks[0]

    async def discard(self, receive: Receive, *, slow: bool) -> None:
        """Read on for a while and throw away, at most as many bytes as a body may have.

        slow: the client has taken its time already.
        """
        late = CancelAfter(_DISCARD_SHORT_SECONDS if slow or self._ended else _DISCARD_SECONDS, self._waits)
        left = self._limit
        try:
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
        except asyncio.CancelledError:
            if not late.came():
                raise
        finally:
            late.end()

    def end(self) -> None:
        """End every wait: the server shuts down."""
        self._ended = True
        for wait in list(self._waits):
            wait.cancel()
