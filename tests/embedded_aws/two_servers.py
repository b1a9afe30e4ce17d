"""Servers in this process under the folders that are named; a line of standard input stops one or starts it again."""

from __future__ import annotations

import sys
from pathlib import Path

from embedded_aws.control.clock import Clock
from embedded_aws.server import Server

servers: dict[str, Server] = {}


def toggle(name: str) -> None:
    """Stop the server of a folder, or start one."""
    if name in servers:
        servers.pop(name).stop()
    else:
        servers[name] = Server(Path(name), clock=Clock(waits=100, limits=60))
        servers[name].start()


for folder in sys.argv[1:]:
    toggle(folder)
for line in sys.stdin:
    toggle(line.strip())
