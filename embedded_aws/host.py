"""What every part of one server shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .clients import Clients
from .control.clock import Clock
from .control.faults import Faults


@dataclass(frozen=True)
class Host:
    """One server, as its hosting, jobs and instances see it: `directory` holds its files."""

    account: str
    directory: Path
    clients: Clients
    clock: Clock = field(default_factory=Clock)
    faults: Faults = field(default_factory=Faults)

    @property
    def scratch(self) -> Path:
        """The folder of temporary files."""
        return self.directory / "tmp"

    @property
    def programs(self) -> Path:
        """The folder that comes first on the PATH of jobs and instances: their Python, see server.py."""
        return self.directory / "bin"
