"""What a server hosts: models, endpoint configurations and endpoints of each region."""

from __future__ import annotations

import threading
from typing import Any

from .endpoint import Endpoint


class Hosted:
    """Models, configurations and endpoints of one region."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, Endpoint] = {}
