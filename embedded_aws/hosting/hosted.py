"""What a server hosts: models, endpoint configurations and endpoints of each region."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..host import Host
from .endpoint import Endpoint


class Hosted:
    """Models, configurations and endpoints of one region."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, Endpoint] = {}


class Hosting:
    """The hosting of every region of a server."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._lock = threading.Lock()
        self._hosted: dict[str, Hosted] = {}

    def hosted(self, region: str) -> Hosted:
        """The hosting of a region, made when it is first asked for."""
        with self._lock:
            return self._hosted.setdefault(region, Hosted())

    def ends(self) -> list[Callable[[], None]]:
        """What ends each endpoint."""
        with self._lock:
            return [endpoint.delete for hosted in self._hosted.values() for endpoint in hosted.endpoints.values()]
