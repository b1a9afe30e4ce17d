"""The jobs of a server."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from .processing import ProcessingJob


@dataclass
class Jobs:
    """The jobs of every region of a server; `quota` is how many Processing jobs an instance type may run at once."""

    quota: int
    lock: threading.RLock = field(default_factory=threading.RLock)
    processing: dict[tuple[str, str], ProcessingJob] = field(default_factory=dict)
