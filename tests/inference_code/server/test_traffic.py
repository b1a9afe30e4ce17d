"""Clients that send what is broken, too slow or too much, or do not read: with both readers of HTTP, over connections.

The limits are so small that each test takes about a second.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.inference_code.artifacts import Server, child_environment, command, doubling_artifact
from tests.inference_code.helpers import LONG, resident, wait_for, without_httptools

HANDLER = """
import json
import time
import numpy as np
from inference_code.request import Answer, Item

def preprocess(request):
    asked = json.loads(request.body[:100].rstrip(b"x"))
    time.sleep(asked.get("sleep", 0))
    return Item({"x": np.ones(3)}, asked)

def postprocess(outputs, item):
    return Answer(bytes(item.context.get("bytes", 2)), "application/octet-stream")
"""
LIMITS = {
    "ENDPOINT_ALLOWED_HOSTS": "x",
    "ENDPOINT_HEAD_TIMEOUT_S": "0.4",
    "ENDPOINT_LEAST_RATE": "10000",
    "ENDPOINT_RATE_WINDOW_S": "0.4",
    "ENDPOINT_MAX_QUEUE": "2",
    "ENDPOINT_MAX_BODIES": "30",
    "ENDPOINT_REQUEST_BYTES": "3000000",
    "ENDPOINT_TRANSFER_BYTES": "9000000",
    "ENDPOINT_HOST_THREADS": "4",
}
PARSERS = ["httptools", "h11"]


@pytest.fixture(scope="module", params=PARSERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(request.param)
    environment = LIMITS | without_httptools(folder, request.param)
    running = Server(doubling_artifact(folder / "artifact", HANDLER), folder / "log", environment)
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def connect(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    connection = socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=LONG)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def head(*more: str) -> bytes:
    return "\r\n".join(["POST /invocations HTTP/1.1", "Host: x", *more, "", ""]).encode()


def post(size: int = 0, **asked: Any) -> bytes:
    """A request, filled up to a body of `size`."""
    body = json.dumps(asked).encode().ljust(size, b"x")
    return head(f"Content-Length: {len(body)}") + body


def chunked(data: bytes) -> bytes:
    return head("Transfer-Encoding: chunked") + data


def whole(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def is_serving(server: Server) -> None:
    assert server.request(body=b"{}").status == 200


BAD_BODIES = {
    "bad chunk size": b"zz\r\nabc\r\n",
    "negative chunk size": b"-5\r\nabcde\r\n",
    "no chunk size": b"\r\n\r\n",
    "a size beyond all numbers": b"fffffffffffffffff\r\n",
    "no line end after a chunk": b"5\r\n{    xx0\r\n\r\n",
    "a later bad size": b"5\r\n{    \r\nzz\r\n",
    "a bad trailer": b"0\r\nno colon\r\n\r\n",
    "NUL in a trailer": b"0\r\na: \x00\r\n\r\n",
}


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("name", sorted(BAD_BODIES))
def test_a_broken_body_is_answered_400_after_the_answers_before(server: Server, name: str, before: int) -> None:
    with connect(server) as connection:
        connection.sendall(post() * before + chunked(BAD_BODIES[name]))
        received = whole(connection)
    beyond = name == "a size beyond all numbers"  # h11 takes it for a number, and waits for that many bytes
    assert statuses(received) in ([200] * before + [400], [200] * before + [408 if beyond else 400])
    if statuses(received)[-1] == 408:
        return
    answer, _, body = received.rpartition(b"\r\n\r\n")
    assert json.loads(body)["error"] == "bad_request"
    assert b"connection: close" in answer.lower().rpartition(b"http/1.1")[2]


def test_a_body_that_breaks_later_is_answered_and_recorded(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(head("Transfer-Encoding: chunked", "X-Request-Id: late") + b"5\r\n{    \r\n")
        time.sleep(0.1)
        connection.sendall(b"zz\r\n" + b"more" * 1000)
        assert statuses(whole(connection)) == [400]
    wait_for(lambda: [one["status"] for one in server.lines if one.get("request_id") == "late"] == [400])


@pytest.mark.parametrize("asked", [post(), post(sleep=0.2)])
def test_what_is_broken_after_a_request_does_not_take_its_answer(server: Server, asked: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(asked + b"\x00\x01 no http\r\n\r\n")
        assert statuses(whole(connection)) == [200, 400]


def test_a_broken_body_of_a_request_that_has_its_answer_gets_no_second(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(chunked(b"2\r\n{}\r\n").replace(b"/invocations", b"/elsewhere"))
        time.sleep(0.1)
        connection.sendall(b"zz\r\n")
        assert statuses(whole(connection)) == [404]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("sleep", [0, 0.4])
def test_a_client_that_closes_its_side_gets_its_answers(server: Server, count: int, sleep: float) -> None:
    with connect(server) as connection:
        connection.sendall(post(sleep=sleep) * count)
        connection.shutdown(socket.SHUT_WR)
        found = [status for status in statuses(whole(connection)) if status != 100]
    assert found == [200] * count


def test_a_client_that_leaves_is_noticed_by_its_reset(server: Server) -> None:
    def gone() -> str:
        (found,) = re.findall(r"^endpoint_clients_gone_total (\d+)", server.request("/metrics").body.decode(), re.M)
        return str(found)

    before = gone()
    with connect(server) as connection:
        connection.sendall(post(sleep=3))
        time.sleep(0.1)
    wait_for(lambda: gone() != before)
    is_serving(server)


@pytest.mark.parametrize("sent", [b"", b"POST /invocations HTTP/1.1\r\nHost: x\r\nX:", post() + b"GET /ping"])
def test_a_head_that_does_not_come_is_not_waited_for(server: Server, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        received = whole(connection)
    assert statuses(received) == ([200] if sent.startswith(post()) else []) + ([408] if sent else [])


def test_a_head_that_trickles_is_not_waited_for(server: Server) -> None:
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /ping HTTP/1.1\r\n")
        for _ in range(300):
            connection.sendall(b"X: y\r\n")
            time.sleep(0.1)
        raise AssertionError("the head was read on")


@pytest.mark.parametrize(
    "sent",
    [head("Content-Length: 100") + b"{", head("Content-Length: 2000000") + b"{" * 100_000, chunked(b"5\r\n{")],
    ids=["small", "large", "chunked"],
)
def test_a_body_that_stays_away_is_408(server: Server, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        received = whole(connection)
    assert statuses(received) == [408]
    assert b"less than 10000 bytes a second over 0.4 s (ENDPOINT_LEAST_RATE)" in received
    is_serving(server)


def test_a_body_that_comes_slowly_but_fast_enough_is_read(server: Server) -> None:
    sent = post(100_000)
    with connect(server) as connection:
        for start in range(0, len(sent), 5000):
            connection.sendall(sent[start : start + 5000])
            time.sleep(0.05)
        assert connection.recv(17) == b"HTTP/1.1 200 OK\r\n"


def test_bodies_that_trickle_take_no_place_of_others(server: Server) -> None:
    """Neither in the queue (of 2) nor, once there are many, among the bodies that are read (30)."""
    with contextlib.ExitStack() as held:
        for _ in range(60):
            held.enter_context(connect(server)).sendall(head("Content-Length: 100") + b"{")
        for _ in range(3):
            wait_for(lambda: server.request(body=b"{}").status == 200)


def test_large_bodies_are_bounded_together(server: Server) -> None:
    """Of ten bodies of 2 MB of which the last byte is missing, 9 MB are held; then a whole one is read."""
    with contextlib.ExitStack() as held:
        others = [held.enter_context(connect(server)) for _ in range(10)]
        for one in others:
            with contextlib.suppress(ConnectionError):
                one.sendall(post(2_000_000)[:-1])
        found = [statuses(whole_or_reset(one)) for one in others]
        assert [] in found or [503] in found or [408] in found
    wait_for(lambda: server.request(body=b"{}".ljust(2_000_000, b"x")).status == 200)


def whole_or_reset(connection: socket.socket) -> bytes:
    try:
        return whole(connection)
    except ConnectionError:
        return b""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_answers_that_nobody_reads_do_not_pile_up(server: Server) -> None:
    is_serving(server)
    before = resident(server.process.pid)
    with contextlib.ExitStack() as held:
        clients = []
        for _ in range(40):
            client = held.enter_context(connect(server))
            clients.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
            client.sendall(head("Content-Length: 18", "Connection: close") + b'{"bytes": 8000000}')
            time.sleep(0.02)
        assert resident(server.process.pid) - before < 160_000_000  # of 320 MB
        is_serving(server)
        for client in clients[:3]:  # the server has closed them: less than all can be read
            assert len(whole_or_reset(client)) < 8_000_000


def test_small_answers_that_nobody_reads_are_closed_too(server: Server) -> None:
    with connect(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        with contextlib.suppress(ConnectionError, TimeoutError):
            client.settimeout(2)
            while True:
                client.sendall(post(bytes=100_000) * 100)
        wait_for(lambda: is_closed(client))


def is_closed(client: socket.socket) -> bool:
    client.settimeout(0.1)
    try:
        client.sendall(b" ")
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


def test_an_answer_that_is_read_slowly_arrives_whole(server: Server) -> None:
    with connect(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30_000)
        client.sendall(post(bytes=600_000) + head("Content-Length: 2", "Connection: close") + b"{}")
        received = b""
        while piece := client.recv(30_000):
            received += piece
            time.sleep(0.005)
    assert statuses(received) == [200, 200]
    assert len(received) > 600_000


# The end ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parser", "processes"), [("httptools", 1), ("h11", 1), ("httptools", 2)])
def test_at_sigterm_what_was_sent_is_answered_and_no_connection_reset(
    tmp_path: Path, parser: str, processes: int
) -> None:
    environment = LIMITS | without_httptools(tmp_path, parser) | {"ENDPOINT_MAX_QUEUE": "64"}
    folder = doubling_artifact(tmp_path / "a", HANDLER)
    server = Server(folder, tmp_path / "log", environment, "--processes", str(processes))

    def client(_: int) -> list[str]:
        """Keeps asking until it is answered with Connection: close; several requests at once, sometimes."""
        problems = []
        with connect(server) as connection:
            stream = connection.makefile("rb")
            for number in range(100_000):
                count = 1 + number % 3
                try:
                    connection.sendall(post() * count)
                    for place in range(count):
                        line, closes = stream.readline(), False
                        while (header := stream.readline()) not in (b"\r\n", b""):
                            closes = closes or header.lower() == b"connection: close\r\n"
                        if b" 200 " not in line or not stream.read(2):
                            problems.append(f"answer {place + 1} of {count}: {line!r}")
                        if closes and place + 1 == count:
                            return problems
                        if closes or problems:
                            return [*problems, f"closed after {place + 1} of {count}"]
                except OSError as error:
                    return [*problems, f"{error!r} for {count}"]
        return ["no end"]

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert [one.result(LONG) for one in clients] == [[]] * 8
    assert server.stop() == 0


def test_at_sigterm_idle_connections_are_closed(tmp_path: Path) -> None:
    server = Server(doubling_artifact(tmp_path / "a", HANDLER), tmp_path / "log", LIMITS)
    with connect(server) as idle, connect(server) as silent:
        idle.sendall(post())
        assert idle.recv(17) == b"HTTP/1.1 200 OK\r\n"
        assert server.stop() == 0
        assert b"HTTP" not in whole(idle)
        assert whole(silent) == b""


# The whole server ---------------------------------------------------------------------------------------------------


def test_ping_is_503_when_every_decoding_thread_is_past_its_deadline(tmp_path: Path) -> None:
    environment = LIMITS | {"ENDPOINT_HOST_THREADS": "1", "ENDPOINT_DEADLINE_S": "0.3", "ENDPOINT_DRAIN_S": "0.1"}
    server = Server(doubling_artifact(tmp_path / "a", HANDLER), tmp_path / "log", environment)
    assert server.request(body=b'{"sleep": 5}').status == 503
    assert server.request("/ping").status == 200
    assert server.request(body=b'{"sleep": 1.5}').status == 503
    answer = server.request("/ping")
    assert (answer.status, json.loads(answer.body)["detail"]) == (
        503,
        "every decoding thread is past its request's deadline",
    )
    wait_for(lambda: server.request("/ping").status == 200)
    server.process.kill()
    server.stop()


def test_file_descriptors_that_run_out_are_logged_and_come_back(tmp_path: Path) -> None:
    server = Server(doubling_artifact(tmp_path / "a", HANDLER), tmp_path / "log", LIMITS)
    used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
    with contextlib.ExitStack() as held:
        for _ in range(30):
            with contextlib.suppress(OSError):
                held.enter_context(connect(server))
        wait_for(lambda: "no connection can be accepted now: Too many open files" in server.log.read_text())

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return server.request(body=b"{}").status == 200
        return False

    wait_for(answers)
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("redirection", "logged"), [(">&-", ""), ("> /dev/full", "standard output takes no line: No space left")]
)
@pytest.mark.parametrize("arguments", [(), ("--supervise",)])
def test_a_standard_output_that_takes_nothing_does_not_keep_a_model_from_being_served(
    tmp_path: Path, redirection: str, logged: str, arguments: tuple[str, ...]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, log = doubling_artifact(tmp_path / "a", HANDLER), tmp_path / "log"
    words = shlex.join(command(folder, "--port", str(port), *arguments))
    with log.open("wb") as errors:
        process = subprocess.Popen(["sh", "-c", f"exec {words} {redirection}"], stderr=errors, env=child_environment())
    try:
        url = f"http://127.0.0.1:{port}/invocations"

        def answers() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(url, b"{}", LONG) as answer:
                return bool(answer.status == 200)
            return False

        wait_for(answers)
    finally:
        process.terminate()
        assert process.wait(LONG) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert logged in log.read_text()
