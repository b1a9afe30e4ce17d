"""The clients of the one server of this process: moto's interpreter hands nothing of ours through to its parts."""

from __future__ import annotations

from embedded_aws.clients import Clients


class Served:
    """Set once, before the first request."""

    clients: Clients
