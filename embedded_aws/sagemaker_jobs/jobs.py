"""The jobs of a server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ..host import Host
from .processing import RUNNING, ProcessingJob


@dataclass
class Jobs:
    """The jobs of every region of a server; `quota` is how many Processing jobs an instance type may run at once."""

    host: Host
    quota: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    processing: dict[tuple[str, str], ProcessingJob] = field(default_factory=dict)

    def ends(self) -> list[Callable[[], None]]:
        """What ends each job that runs."""
        with self.lock:
            return [job.kill for job in self.processing.values() if job.status in RUNNING]
