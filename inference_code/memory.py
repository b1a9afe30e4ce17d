"""The memory that this process may use: of the machine, and of it what all requests together may take at once."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from inference_code.errors import TooLarge, Unavailable

# https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files, and version 1's name of the same
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_WAIT_SECONDS = 5.0


def machine_bytes() -> int:
    """The memory of this machine, or of the container if that has less."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in map(Path, _CGROUP_LIMITS):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            found = min(found, int(path.read_text()))
    return found


class MemoryBudget:
    """At most `limit` bytes at once, of which any thread takes some and gives them back."""

    def __init__(self, limit: int, wait_s: float = _WAIT_SECONDS) -> None:
        """wait_s: seconds that a thread waits for what others have taken."""
        self._limit, self._wait_s, self._taken = limit, wait_s, 0
        self._changed = threading.Condition()

    def take(self, size: int, what: str) -> None:
        """Take `size` bytes for `what`, once they are free.

        Raises TooLarge for more than there are, Unavailable when they are not free in time.
        """
        if size > self._limit:
            raise TooLarge(
                f"{what} takes {size} bytes of memory to read; at most {self._limit} are (ENDPOINT_DECODE_BYTES). "
                "Send a smaller one"
            )
        with self._changed:
            if not self._changed.wait_for(lambda: self._taken + size <= self._limit, self._wait_s):
                raise Unavailable(
                    f"{what} takes {size} bytes of memory to read, and {self._taken} of {self._limit} are in use "
                    "(ENDPOINT_DECODE_BYTES); retry",
                    retry_after=1,
                )
            self._taken += size

    def give_back(self, size: int) -> None:
        """What was taken is free again."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    @contextlib.contextmanager
    def taken(self, size: int, what: str) -> Iterator[None]:
        """`take` and `give_back`; nothing for a size of 0."""
        if size:
            self.take(size, what)
        try:
            yield
        finally:
            if size:
                self.give_back(size)
