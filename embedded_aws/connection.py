"""One connection of the server: how it is read and written, and what is looked at before WSGI sees the request."""

from __future__ import annotations

import io
import logging
import socket
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler

from .access import refusal

log = logging.getLogger(__name__)
# nothing moves on a connection for so long: it is closed, as S3 does (RequestTimeout),
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
IDLE_SECONDS = 60.0
PART_BYTES = 262144
REFUSAL = "embedded_aws.refusal"  # the WSGI key of the reason why a request must not be answered, or None


class Parts(io.BufferedIOBase):
    """Writes to a socket in parts, because its timeout is for the whole of what one sendall() sends."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: Any) -> int:
        """All of it. Raises TimeoutError when the client takes nothing of it, ConnectionError when it is gone."""
        view = memoryview(data)
        for begin in range(0, len(view), PART_BYTES):
            self.connection.sendall(view[begin : begin + PART_BYTES])
        return len(view)


class QuietHandler(MotoRequestHandler):
    """HTTP/1.1, so that a client's `Expect: 100-continue` is answered at once; requests go to the debug log."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def setup(self) -> None:
        """Answers leave in parts."""
        super().setup()
        self.wfile = Parts(self.connection)

    def make_environ(self) -> dict[str, Any]:
        """With the reason why this request must not be answered, or None; WSGI itself would merge two Host headers."""
        reason = refusal(self.headers, self.server.port)
        if not self.path.startswith("/"):  # werkzeug takes the host of an absolute address in place of Host
            reason = f"its target {self.path[:200]!r} is no path"
        return {**super().make_environ(), REFUSAL: reason}

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's signature
        """One line of werkzeug's log."""
        log.debug("%s %s", type, message % args if args else message)
