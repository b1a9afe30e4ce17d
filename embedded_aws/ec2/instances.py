"""The instances of a server."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from .machine import Machine


@dataclass
class Instances:
    """The machines of every region of a server, and what each ClientToken has started."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    machines: dict[str, Machine] = field(default_factory=dict)
    started: dict[tuple[str, str], tuple[str, Any]] = field(default_factory=dict)
