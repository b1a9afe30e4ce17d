"""Which addresses can only be this machine: the fence around rehearsals."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine: `localhost`, 127.0.0.0/8 or ::1 (RFC 6761 section 6.3, RFC 1122)."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # half an IPv6 address: whatever it is, it is not this machine
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
