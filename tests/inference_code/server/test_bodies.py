"""Bodies of every size and manner of sending reach the handler whole, over real connections."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.inference_code.artifacts import Server, doubling_artifact

HANDLER = """
import hashlib
import numpy as np
from inference_code.request import Item

def preprocess(request):
    said = {"digest": hashlib.sha256(request.body).hexdigest(), "bytes": len(request.view)}
    said["kind"] = type(request.body).__name__
    return Item({"x": np.ones(3)}, said)

def postprocess(outputs, item):
    return dict(item.context)
"""
LIMIT = 3_000_000
EDGE = 64 * 1024  # from here on a body is received into memory of its own
LARGE = 700_001


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bodies")
    environment = {"ENDPOINT_REQUEST_BYTES": str(LIMIT), "ENDPOINT_BODY_TIMEOUT_S": "2"}
    environment["ENDPOINT_ALLOWED_HOSTS"] = "test"
    running = Server(doubling_artifact(folder / "artifact", HANDLER), folder / "log", environment)
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def body_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def head(size: int | None, *more: str, path: str = "/invocations") -> bytes:
    length = [] if size is None else [f"Content-Length: {size}"]
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: test", *length, *more, "", ""]).encode()


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    connection = socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, object]]]:
    """(status, JSON) of the next `count` answers."""
    stream, found = connection.makefile("rb"), []
    for _ in range(count):
        status = int(stream.readline().split()[1])
        headers = http.client.parse_headers(stream)
        found.append((status, json.loads(stream.read(int(headers["Content-Length"])))))
    return found


def expected(body: bytes) -> dict[str, object]:
    return {"digest": hashlib.sha256(body).hexdigest(), "bytes": len(body), "kind": "bytes"}


@pytest.mark.parametrize("size", [0, 1, EDGE - 1, EDGE, EDGE + 1, 2 * EDGE - 150, 2 * EDGE, LARGE, LIMIT])
def test_a_body_of_any_size_arrives_whole_and_the_connection_serves_on(server: Server, size: int) -> None:
    with connect(server) as connection:
        for seed in (1, 2):
            body = body_of(size, seed)
            connection.sendall(head(size) + body)
            assert answers(connection, 1) == [(200, expected(body))]


@pytest.mark.parametrize("piece", [1000, EDGE, 100_000])
def test_a_body_may_come_in_pieces(server: Server, piece: int) -> None:
    body = body_of(LARGE)
    with connect(server) as connection:
        sent = head(len(body))
        for number, start in enumerate(range(0, len(body), piece)):
            connection.sendall(sent + body[start : start + piece])
            sent = b""
            if number < 5:
                time.sleep(0.01)
        assert answers(connection, 1) == [(200, expected(body))]


def test_a_head_in_pieces_before_a_large_body(server: Server) -> None:
    body, whole = body_of(LARGE), head(LARGE)
    with connect(server) as connection:
        for piece in (whole[:10], whole[10:-1], whole[-1:] + body[:1], body[1:]):
            connection.sendall(piece)
            time.sleep(0.02)
        assert answers(connection, 1) == [(200, expected(body))]


def test_requests_sent_without_waiting_are_answered_in_order(server: Server) -> None:
    bodies = [body_of(size, seed) for seed, size in enumerate((LARGE, 10, EDGE, LARGE, 0, EDGE + 7))]
    with connect(server) as connection:
        connection.sendall(b"".join(head(len(body)) + body for body in bodies))
        assert answers(connection, len(bodies)) == [(200, expected(body)) for body in bodies]


def test_large_bodies_in_chunks_and_of_known_length_by_turns(server: Server) -> None:
    body = body_of(LARGE)
    chunks = [body[start : start + 30_000] for start in range(0, len(body), 30_000)]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(head(None, "Transfer-Encoding: chunked") + chunked)
            assert answers(connection, 1) == [(200, expected(body))]
            connection.sendall(head(LARGE) + body)
            assert answers(connection, 1) == [(200, expected(body))]


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_would_rather_speak_another_protocol_is_answered_in_this_one(
    server: Server, size: int, *, chunked: bool
) -> None:
    """As Java's client asks with every request; and what it sends without waiting is no other protocol's either."""
    body, upgrade = body_of(size), ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAQAAP__")
    sent = head(None if chunked else size, *upgrade, *(["Transfer-Encoding: chunked"] if chunked else []))
    sent += (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n" if chunked else body
    with connect(server) as connection:
        connection.sendall(sent * 2 + head(3) + b"end")
        assert answers(connection, 3) == [(200, expected(body))] * 2 + [(200, expected(b"end"))]


def test_a_client_that_waits_to_be_asked_for_its_body(server: Server) -> None:
    body = body_of(LARGE)
    with connect(server) as connection:
        connection.sendall(head(LARGE, "Expect: 100-continue"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert answers(connection, 1) == [(200, expected(body))]


def test_a_large_body_that_is_refused_leaves_the_connection_usable(server: Server) -> None:
    body = body_of(LARGE)
    with connect(server) as connection:
        connection.sendall(head(LARGE, path="/elsewhere") + body)
        assert answers(connection, 1)[0][0] == 404
        connection.sendall(head(LARGE) + body)
        assert answers(connection, 1) == [(200, expected(body))]


def test_one_byte_above_the_limit_is_413(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(head(LIMIT + 1) + bytes(LIMIT + 1))
        ((status, said),) = answers(connection, 1)
        assert (status, said["error"]) == (413, "too_large")


def test_a_large_body_that_stays_away_is_408(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(head(LARGE) + body_of(EDGE + 100))
        ((status, said),) = answers(connection, 1)
        assert (status, said["detail"]) == (408, "the body did not arrive within 2 s")
        assert connection.recv(1) == b""


def test_a_client_that_goes_while_sending_a_large_body_is_counted_as_gone(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(head(LARGE, "X-Request-Id: left") + body_of(EDGE + 100))
        time.sleep(0.1)
    for _ in range(500):
        lines = [line for line in server.lines if line.get("request_id") == "left"]
        if lines:
            break
        time.sleep(0.01)
    assert [(line["status"], line["error"]) for line in lines] == [(None, "client_gone")]
    assert server.request(body=b"x").status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_connection_keeps_no_body(server: Server) -> None:
    """Of what was sent to a route that reads none, too: 60 idle connections of 3 MB each would show."""

    def memory() -> int:
        pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    body = bytes(LIMIT)
    held = []
    try:
        for number in range(60):
            held.append(connect(server))
            held[-1].sendall(head(LIMIT, path="/elsewhere" if number % 2 else "/invocations") + body)
            answers(held[-1], 1)
            if number == 9:
                before = memory()
        assert memory() - before < 50 * LIMIT / 2
    finally:
        for connection in held:
            connection.close()
