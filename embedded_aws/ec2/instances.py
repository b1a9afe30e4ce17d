"""The instances of a server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..host import Host
from .machine import Machine


class Instances:
    """The machines of every region of a server, and what each ClientToken has started."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lock = threading.RLock()
        self.machines: dict[str, Machine] = {}
        self.started: dict[tuple[str, str], tuple[str, Any]] = {}

    def ends(self) -> list[Callable[[], None]]:
        """What ends each machine."""
        return [machine.kill for machine in list(self.machines.values())]
