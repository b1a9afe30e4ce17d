"""Servers in this process under the folders that are named; a line of standard input stops one or starts it again."""

from __future__ import annotations

import sys
from pathlib import Path

from embedded_aws.server import Server, Settings

servers: dict[str, Server] = {}


def toggle(name: str) -> None:
    """Stop the server of a folder, or start one."""
    if name in servers:
        servers.pop(name).stop()
    else:
        servers[name] = Server(Path(name), settings=Settings(wait_speed=100, limit_speed=60))
        servers[name].start()


for folder in sys.argv[1:]:
    toggle(folder)
for line in sys.stdin:
    toggle(line.strip())
