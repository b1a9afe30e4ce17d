"""A worker process's place among several, and its channel to the parent.

The parent (supervisor.py) accepts the connections and hands each to one process, over a socket pair. What goes over it:

    parent to process   CONNECTION, with the connection's file descriptor
    process to parent   READY      the model has answered: connections may come
                        TAKEN      the next connection has arrived here; until then the parent holds it too
                        ENDED      a connection is closed
                        LEAVING    it is ending, and takes no connection any more
                        REFUSED    it cannot serve; the rest is the reason, one line
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CONNECTION, READY, TAKEN, ENDED, LEAVING, REFUSED = b"c", b"r", b"t", b"e", b"l", b"x"


@dataclass(frozen=True)
class WorkerContext:
    """Place `index` of `count`; the rest are file descriptors from the parent, and the folder that all share.

    channel: the way to the parent; ended: a pipe that ends when the parent does; turn: a file that is locked by the
    process whose turn it is to write to standard output.
    """

    index: int
    count: int
    channel: int
    ended: int
    turn: int
    folder: Path

    @classmethod
    def read(cls, text: str) -> WorkerContext:
        """The place that `text` describes, as the parent wrote it on the command line."""
        index, count, channel, ended, turn, folder = text.split(",", 5)
        return cls(int(index), int(count), int(channel), int(ended), int(turn), Path(folder))

    def __str__(self) -> str:
        return f"{self.index},{self.count},{self.channel},{self.ended},{self.turn},{self.folder}"

    def follow(self, end: Callable[[], None]) -> None:
        """Call `end`, on a thread of its own, when the parent is gone."""

        def wait() -> None:
            while os.read(self.ended, 1):
                pass
            end()

        threading.Thread(target=wait, name="parent", daemon=True).start()

    def refuse(self, line: str) -> None:
        """Send the parent the reason why this process cannot serve; it prints one line for all processes."""
        with socket.socket(fileno=os.dup(self.channel)) as channel:
            channel.setblocking(True)
            channel.sendall(REFUSED + line.encode())
