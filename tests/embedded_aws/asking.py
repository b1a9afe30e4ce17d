"""Requests byte for byte as a test wants them, for what boto3 would not send."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def cors(self) -> list[str]:
        """The names of the CORS headers in it."""
        return [name for name in self.headers if name.lower().startswith("access-control-")]


def ask(
    port: int, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes = b"", *, host: str | None = ""
) -> Reply:
    """One request with these headers, in this order; `host` is 127.0.0.1:PORT unless given, None sends no Host."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        if host is not None:
            connection.putheader("Host", host or f"127.0.0.1:{port}")
        names = {name.lower() for name, _ in headers}
        if body and not names & {"content-length", "transfer-encoding"}:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace"))
    finally:
        connection.close()


def signed(key: str, service: str) -> tuple[str, str]:
    """An Authorization header as a client signs; the signature itself is none."""
    scope = f"{key}/20260101/us-east-1/{service}/aws4_request"
    return "Authorization", f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
