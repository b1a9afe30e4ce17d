"""The threads for decoding and encoding; encoding has priority over decoding.

concurrent.futures has one queue, in which the answers of finished requests would wait behind the decoding of all that
came later, and makes a Future with its own lock for every piece of work, which is not needed here.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

Piece = Callable[[], None]


class Pool:
    """`count` threads; each runs a piece of work at a time. A piece must not raise."""

    def __init__(self, count: int, name: str) -> None:
        self._beginnings: collections.deque[Piece] = collections.deque()
        self._endings: collections.deque[Piece] = collections.deque()
        self._tokens: SimpleQueue[bool] = SimpleQueue()  # one for each piece; False: end
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    @property
    def idents(self) -> list[int]:
        """The threads, as threading.get_ident has them."""
        return [thread.ident or 0 for thread in self._threads]

    def submit(self, piece: Piece, *, ending: bool = False) -> None:
        """Have `piece` run; one that is `ending` a request before all that are not.

        Raises RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        (self._endings if ending else self._beginnings).append(piece)
        self._tokens.put(True)

    def close(self) -> None:
        """Begin nothing more; what is under way goes on."""
        self._closed = True
        for _ in self._threads:
            self._tokens.put(False)

    def join(self, end: float) -> bool:
        """Wait for the threads until `end`, a time of time.monotonic. Returns whether all have ended."""
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while self._tokens.get() and not self._closed:
            piece = self._next()
            piece()

    def _next(self) -> Piece:
        """There is a piece for every token: appended before it was put."""
        try:
            return self._endings.popleft()
        except IndexError:
            return self._beginnings.popleft()
