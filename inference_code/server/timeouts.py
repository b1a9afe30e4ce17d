"""Timers of one request on the event loop: the end of a wait, the deadline, a client that closes the connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]  # ASGI's

_WATCH_AFTER = 0.005  # seconds


class CancelAfter:
    """Cancels the task that makes it, after `seconds`: asyncio.timeout, which Python 3.10 does not have.

    asyncio.wait_for would make a task of its own for each request.
    """

    def __init__(self, seconds: float, among: set[CancelAfter]) -> None:
        """It is one of `among` until its end."""
        self._task = asyncio.current_task()
        self._came = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self.cancel)
        self._among = among
        among.add(self)

    def cancel(self) -> None:
        """Not after `seconds`, but now."""
        assert self._task is not None  # noqa: S101  (made within a task)
        if not self._came:
            self._came = True
            self._task.cancel()

    def came(self) -> bool:
        """Whether a CancelledError that was caught is this one's, and no one else's."""
        if not self._came:
            return False
        uncancel = getattr(self._task, "uncancel", None)  # since Python 3.11
        return uncancel is None or uncancel() == 0

    def end(self) -> None:
        """Cancel nothing any more."""
        self._timer.cancel()
        self._among.discard(self)


class ClientWatch:
    """Calls `left` when the client closes the connection, `expire` at the deadline. The body has been read.

    It begins to look after _WATCH_AFTER seconds: a request that is answered by then needs no task that looks.
    """

    def __init__(self, receive: Receive, left: Callable[[], None], deadline: float, expire: Callable[[], None]) -> None:
        self._receive, self._left, self._deadline, self._expire = receive, left, deadline, expire
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._look())
        seconds = max(0.0, self._deadline - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def end(self) -> None:
        """Look no longer, and let go of what the callbacks hold: the answer would stay until garbage is collected."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._task, self._left, self._expire = None, _nothing, _nothing


def _nothing() -> None:
    pass
