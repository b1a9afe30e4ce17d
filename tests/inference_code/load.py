"""Counted requests over many connections: a bounded client on the standard library's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Sent:
    """One request as the client sends it: its number, headers without Content-Length, body."""

    number: int
    body: bytes
    headers: str = ""
    path: str = "/invocations"


@dataclass(frozen=True)
class Got:
    """The answer to request `number`; status 0: the connection broke (`body` says how)."""

    number: int
    status: int
    headers: dict[str, str]
    body: bytes


class _Connection:
    """One keep-alive connection, opened when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        self._address, self._host = (host, port), f"{host}:{port}"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: Sent) -> Got:
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address, limit=1 << 20)
            reader, writer = self._streams
            head = f"POST {sent.path} HTTP/1.1\r\nHost: {self._host}\r\n"
            head += f"{sent.headers}Content-Length: {len(sent.body)}\r\n\r\n"
            writer.write(head.encode("latin1") + sent.body)
            await writer.drain()
            return await self._answer(reader, sent.number)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
            await self.close()
            return Got(sent.number, 0, {}, repr(error).encode())

    async def _answer(self, reader: asyncio.StreamReader, number: int) -> Got:
        head = [""]
        while not head[0][9:12].strip() or head[0].split()[1] == "100":  # 100 Continue comes before the answer
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"])) if "content-length" in headers else b""
        if headers.get("connection") == "close" or "content-length" not in headers:
            await self.close()
        return Got(number, int(head[0].split()[1]), headers, body)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _all(url: str, requests: Sequence[Sent], connections: int, answered: Callable[[Got], None]) -> None:
    address = urlsplit(url)
    left = iter(requests)

    async def client() -> None:
        connection = _Connection(address.hostname or "", address.port or 0)
        for sent in left:
            answered(await connection.ask(sent))
        await connection.close()

    await asyncio.gather(*(client() for _ in range(connections)))


def send_all(
    url: str, requests: Sequence[Sent], connections: int, answered: Callable[[Got], None] = lambda _: None
) -> list[Got]:
    """Send each request once, at most `connections` at a time; the answers in the order in which they came."""
    answers: list[Got] = []

    def collect(got: Got) -> None:
        answers.append(got)
        answered(got)

    asyncio.run(_all(url, requests, connections, collect))
    return answers
