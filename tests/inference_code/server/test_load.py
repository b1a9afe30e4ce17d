"""Load and faults against the native server as a process: every request is counted. The long runs are marked slow."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.inference_code.artifacts import (
    Server,
    child_environment,
    command,
    depth_artifact,
    doubling_artifact,
    sums_artifact,
)
from tests.inference_code.corpus import hostile, raw, shown
from tests.inference_code.helpers import (
    JSON,
    children,
    exchange,
    is_serving,
    items,
    request,
    resident,
    unbatched,
    wait_for,
    without_httptools,
)
from tests.inference_code.load import Got, send_all

AMOUNT = [400, pytest.param(10_000, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def sums_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("load")
    artifact = sums_artifact(folder / "artifact", batches=(1, 4, 8))
    server = Server(artifact, folder / "log", {"ENDPOINT_WORKERS": "2", "ENDPOINT_ALLOWED_HOSTS": "x"})
    yield server, artifact
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("count", AMOUNT)
def test_none_is_lost_or_doubled_and_each_is_answered_as_if_alone(sums_server: tuple[Server, Path], count: int) -> None:
    server, artifact = sums_server
    before = measured(server)
    requests = [request(number) for number in range(count)]
    answers = send_all(server.url, requests, 64)
    assert sorted(answer.number for answer in answers) == list(range(count))
    expected = unbatched(artifact, requests)
    wrong = [answer for answer in answers if (answer.status, answer.body) != expected[answer.number]]
    assert wrong == []
    after = measured(server)
    good = sum(1 for number in range(count) for item in items(number) if len(item["x"]) == 3)
    assert after["items"] - before["items"] == good
    assert after["batches"] - before["batches"] < good, "nothing was ever batched"


def measured(server: Server) -> dict[str, float]:
    """Items and batches so far, by /metrics."""
    text = server.request("/metrics").body.decode()
    found = {"items": 0.0, "batches": 0.0}
    for kind, name in (("sum", "items"), ("count", "batches")):
        found[name] = sum(map(float, re.findall(rf"^endpoint_batch_items_{kind}\S* (\S+)$", text, re.MULTILINE)))
    return found


def test_more_connections_than_the_queue_holds_get_503_with_retry_after(tmp_path: Path) -> None:
    server = Server(sums_artifact(tmp_path / "a"), tmp_path / "log", {"ENDPOINT_MAX_QUEUE": "4"})
    try:
        answers = send_all(server.url, [request(number) for number in range(300)], 32)
    finally:
        assert server.stop() == 0
    assert len(answers) == 300
    assert {answer.status for answer in answers} == {200, 503}
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 503)
    logged = [line for line in server.lines if line.get("event") == "request"]
    assert sorted(line["status"] for line in logged) == sorted(answer.status for answer in answers)
    assert len({line["request_id"] for line in logged}) == 300


# A server that is killed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_killed_server_loses_only_what_was_inside_it_and_comes_back(tmp_path: Path, count: int) -> None:
    artifact = sums_artifact(tmp_path / "a")
    server = Server(artifact, tmp_path / "log", None, "--supervise")
    connections, seen = 16, []
    lock = threading.Lock()

    def kill_at_half(got: Got) -> None:
        with lock:
            seen.append(got.number)
            if len(seen) == count // 2:
                (child,) = children(server.process.pid)
                os.kill(child, signal.SIGKILL)

    try:
        answers = send_all(server.url, [request(number) for number in range(count)], connections, kill_at_half)
        assert server.request("/ping").status == 200
    finally:
        assert server.stop() == 0
    assert len(answers) == count
    lost = [answer.number for answer in answers if answer.status == 0]
    assert 1 <= len(lost) <= connections
    expected = unbatched(artifact, [request(number) for number in range(count)])
    assert all((one.status, one.body) == expected[one.number] for one in answers if one.status != 0)
    assert "the server was ended by signal 9" in server.log.read_text()


def test_a_supervised_server_that_cannot_serve_ends_at_once(tmp_path: Path) -> None:
    run = subprocess.run(
        [*command(tmp_path, "--port", "0"), "--supervise"],
        capture_output=True, text=True, timeout=120, check=False, env=child_environment(),
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)


def test_no_server_outlives_its_supervisor(tmp_path: Path) -> None:
    server = Server(sums_artifact(tmp_path / "a"), tmp_path / "log", None, "--supervise")
    (child,) = children(server.process.pid)
    server.process.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_serving(child))
    assert server.stop() == -signal.SIGKILL


# Hostile and slow clients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", AMOUNT)
@pytest.mark.parametrize("parser", ["httptools", pytest.param("h11", marks=pytest.mark.slow)])
def test_hostile_requests_are_answered_below_500_and_the_memory_stays(
    tmp_path: Path, count: int, parser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them to a model of pictures, half to one of numbers."""
    limits = {"ENDPOINT_MAX_PIXELS": "1000000", "ENDPOINT_REQUEST_BYTES": "2000000"}
    statuses: set[int] = set()
    for place, build in enumerate((depth_artifact, doubling_artifact)):
        folder = tmp_path / build.__name__
        start = place * (count // 2)
        server = Server(build(folder / "artifact"), folder / "log", limits | without_httptools(tmp_path, parser))
        try:
            send_all(server.url, [hostile(number) for number in range(start, start + count // 4)], 8)  # warm
            early = resident(server.process.pid)
            answers = send_all(server.url, [hostile(number) for number in range(start, start + count // 2)], 8)
            late = resident(server.process.pid)
            assert server.process.poll() is None
            assert server.request("/ping").status == 200
        finally:
            assert server.stop() == 0
        failed = [(one.status, one.body, shown(one.number)) for one in answers if not 200 <= one.status < 500]
        assert failed == [], server.log.read_text()[-2000:]
        assert sorted(one.number for one in answers) == list(range(start, start + count // 2))
        statuses.update(one.status for one in answers)
        assert late - early < 64 * 2**20, "memory grows"
        assert "Traceback" not in server.log.read_text()
    assert {200, 400, 406, 413, 415} <= statuses


@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_what_is_no_http_or_odd_is_answered_below_500_or_closed(sums_server: tuple[Server, Path], count: int) -> None:
    server, _ = sums_server
    address = urlsplit(server.url)
    statuses: set[int] = set()
    for number in range(count):
        with socket.create_connection((address.hostname, address.port), timeout=5) as stream:
            answer = exchange(stream, raw(number), half_close=number % 3 == 0)
        found = [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)]
        assert all(status < 500 for status in found), (number, answer[:500])
        statuses.update(found)
    assert {200, 400, 404, 405} <= statuses
    assert server.request("/ping").status == 200
    wait_for(lambda: b"\nendpoint_requests_inside 0\n" in server.request("/metrics").body)


def test_slow_and_broken_clients_hold_nobody_up(sums_server: tuple[Server, Path]) -> None:
    server, artifact = sums_server
    address = urlsplit(server.url)
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    streams = [socket.create_connection((address.hostname, address.port), timeout=60) for _ in range(30)]
    try:
        for place, stream in enumerate(streams):
            stream.sendall((head + b'{"x": [1')[: 20 + 5 * place])  # from half a head to half a body
        requests = [request(number) for number in range(100)]
        expected = unbatched(artifact, requests)
        answers = send_all(server.url, requests, 8)
        assert [answer for answer in answers if (answer.status, answer.body) != expected[answer.number]] == []
        for stream in streams[::2]:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing resets the connection
    finally:
        for stream in streams:
            stream.close()
    wait_for(lambda: b"\nendpoint_requests_inside 0\n" in server.request("/metrics").body)


def test_one_byte_at_a_time_is_answered(sums_server: tuple[Server, Path]) -> None:
    server, _ = sums_server
    address = urlsplit(server.url)
    sent = request(1)
    head = (
        f"POST /invocations HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: {len(sent.body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=60) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head.encode() + sent.body:
            stream.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: stream.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 200")
