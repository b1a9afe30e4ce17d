"""Several processes of the native server on one port: real processes, real HTTP."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from inference_code.artifact import manifest as m
from inference_code.server.__main__ import main as server_command
from inference_code.workers.channel import WorkerContext
from tests.inference_code.artifacts import (
    Server,
    child_environment,
    command,
    doubling_artifact,
    sums_artifact,
)
from tests.inference_code.helpers import SLOW, children, fails, is_serving, request, unbatched, wait_for
from tests.inference_code.load import Got, send_all

BODY = b'{"x": [1, 2, 3], "n": [1, 2]}'
SHARED = {
    "ENDPOINT_WORKERS": "4",
    "ENDPOINT_MAX_QUEUE": "41",
    "ENDPOINT_HOST_THREADS": "8",
    "NEURON_RT_NUM_CORES": "4",
}


def places(server: Server) -> dict[int, int]:
    """The process at each place."""
    return {member(child).index: child for child in children(server.process.pid)}


def running() -> Iterator[bytes]:
    """The command line of every process of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            yield path.read_bytes()


def member(process: int) -> WorkerContext:
    path = Path(f"/proc/{process}/cmdline")
    arguments = path.read_bytes().decode().split("\0")
    while "--worker-context" not in arguments and arguments != [""]:  # it has been forked, and is no other program yet
        time.sleep(0.01)
        arguments = path.read_bytes().decode().split("\0")
    return WorkerContext.read(arguments[arguments.index("--worker-context") + 1])


class Client:
    """One keep-alive connection; `process` is the place of the one that answers it."""

    def __init__(self, server: Server) -> None:
        address = urlsplit(server.url)
        self.server = server
        self.connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        self.process = int(self.line(self.ask(BODY))["process"])

    def ask(self, body: bytes) -> str:
        """Returns the request's id."""
        self.connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        assert (answer.status, answer.read()[:1]) == (200, b"{")
        return answer.headers["x-request-id"]

    def line(self, request_id: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def metrics() -> bool:
            found[:] = [line for line in list(self.server.lines) if line.get("request_id") == request_id]
            return bool(found)

        wait_for(metrics)
        return found[0]

    def metrics(self) -> dict[str, float]:
        self.connection.request("GET", "/metrics")
        text = self.connection.getresponse().read().decode()
        return {name: float(value) for name, value in re.findall(r"^([^#\n]\S*) (\S+)$", text, re.MULTILINE)}


@contextlib.contextmanager
def clients(server: Server, count: int) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(Client(server))
            stack.callback(found[-1].connection.close)
        yield found
    time.sleep(0.3)  # for the parent to learn of it


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pair")
    server = Server(sums_artifact(folder / "artifact", batches=(1, 4, 8)), folder / "log", SHARED, "--processes", "2")
    place = member(places(server)[0]).folder
    assert place.stat().st_mode & 0o777 == 0o700
    yield server
    assert server.stop() == 0
    log = server.log.read_text()
    assert ("Traceback" in log, log.count("the GIL")) == (False, 2)  # once by each process
    assert not place.exists()


def test_each_process_has_its_share_and_the_parent_has_no_torch(pair: Server) -> None:
    wanted = {"ENDPOINT_WORKERS": "2", "ENDPOINT_HOST_THREADS": "4", "NEURON_RT_NUM_CORES": "2"}
    for index, (cores, queue) in enumerate((("0-1", "21"), ("2-3", "20"))):
        given = Path(f"/proc/{places(pair)[index]}/environ").read_bytes().decode().split("\0")
        found = dict(line.split("=", 1) for line in given if line)
        own = {"NEURON_RT_VISIBLE_CORES": cores, "ENDPOINT_MAX_QUEUE": queue}
        assert (wanted | own).items() <= found.items()
    assert "libtorch" not in Path(f"/proc/{pair.process.pid}/maps").read_text()


def test_connections_go_to_the_process_that_has_the_fewest(pair: Server) -> None:
    with clients(pair, 8) as found:
        assert sorted(one.process for one in found) == [0] * 4 + [1] * 4
        for one in found:
            if one.process == 0:
                one.connection.close()
        time.sleep(0.3)
        with clients(pair, 4) as others:
            assert [one.process for one in others] == [0] * 4


def test_cores_are_numbered_over_all_processes(pair: Server) -> None:
    with clients(pair, 2) as found:
        for one in found:
            cores = {core for _ in range(4) for core in one.line(one.ask(BODY))["core"]}
            assert cores == {2 * one.process, 2 * one.process + 1}
        metrics = found[0].metrics()
    assert {name.split('core="')[1][0] for name in metrics if "endpoint_device_seconds_count" in name} == set("0123")


def test_metrics_are_the_sum_whichever_process_is_asked(pair: Server) -> None:
    with clients(pair, 2) as found:
        before = found[0].metrics()
        for one in found:
            one.ask(BODY)
        after = [one.metrics() for one in found]
        assert {one.process for one in found} == {0, 1}
    status = 'endpoint_requests_total{status="200"}'
    assert [found[status] - before[status] for found in after] == [2, 2]
    assert [found["endpoint_request_seconds_count"] - before["endpoint_request_seconds_count"] for found in after] == [
        2,
        2,
    ]
    assert all(found["endpoint_processes"] == 2 and found["endpoint_processes_silent"] == 0 for found in after)
    buckets = [value for name, value in after[0].items() if name.startswith("endpoint_request_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == after[0]["endpoint_request_seconds_count"]


def test_a_process_that_does_not_tell_its_metrics_is_left_out_and_counted(pair: Server) -> None:
    with clients(pair, 2) as found:
        one = next(one for one in found if one.process == 0)
        stuck = places(pair)[1]
        os.kill(stuck, signal.SIGSTOP)
        try:
            metrics = one.metrics()
        finally:
            os.kill(stuck, signal.SIGCONT)
    assert (metrics["endpoint_processes"], metrics["endpoint_processes_silent"]) == (1, 1)


def test_lines_stay_whole_and_none_is_missing(pair: Server) -> None:
    answers = send_all(pair.url, [request(number) for number in range(600)], 16)
    assert {answer.status for answer in answers} == {200}
    ids = {answer.headers["x-request-id"] for answer in answers}

    def metrics() -> list[dict[str, Any]]:
        return [line for line in list(pair.lines) if line.get("request_id") in ids]

    wait_for(lambda: len(metrics()) >= 600)
    counts = np.bincount([line["process"] for line in metrics()])
    assert counts.sum() == 600
    assert counts.min() > 150


def test_each_process_has_a_copy_on_each_of_its_cores_of_a_chip(tmp_path: Path) -> None:
    """With a stand-in for the target's extension; two cores a copy, so that copies are numbered."""
    (tmp_path / "torch_neuron.py").write_text('__version__ = "1.13.1.2.11.13.0"\n')
    versions = {"torch": str(torch.__version__), "torch-neuron": "1.13.1.2.11.13.0"}
    artifact = sums_artifact(tmp_path / "a", rehearsal=False, stand_in=True, cores_per_copy=2, versions=versions)
    path = f"{tmp_path}:{child_environment()['PYTHONPATH']}"
    server = Server(artifact, tmp_path / "log", {"PYTHONPATH": path, "NEURON_RT_NUM_CORES": "8"}, "--processes", "2")
    try:
        with clients(server, 2) as found:
            cores = {one.process: {tuple(one.line(one.ask(BODY))["core"]) for _ in range(4)} for one in found}
    finally:
        assert server.stop() == 0
    assert cores == {0: {(0,), (1,)}, 1: {(2,), (3,)}}


WRITES = """
import sys
from pathlib import Path
from inference_code.workers.channel import WorkerContext
from inference_code.workers.shared_output import exclusive_stdout
write = exclusive_stdout(WorkerContext(0, 3, 0, 0, int(sys.argv[1]), Path()))
for number in range(30):
    write(sys.argv[2].encode() * 30_000 + b"\\n" + sys.argv[2].encode() * 10 + b"\\n")
"""


def test_processes_that_write_long_lines_to_one_pipe_take_turns(tmp_path: Path) -> None:
    with (tmp_path / "turn").open("w+b") as turn:
        turn.write(b"1")  # as one leaves it that was killed within a line
        turn.flush()
        read, written = os.pipe()
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITES, str(turn.fileno()), letter],
                stdout=written, pass_fds=(turn.fileno(),), env=child_environment(),
            )
            for letter in "abc"
        ]  # fmt: skip
        os.close(written)
        with open(read, "rb") as stream:  # noqa: PTH123  (a file descriptor)
            lines = stream.read().split(b"\n")
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert lines[0] == b"" == lines[-1]
    assert sorted(lines[1:-1]) == sorted(
        letter * count for letter in (b"a", b"b", b"c") for count in (30_000, 10) for _ in range(30)
    )


def test_nobody_reads_the_output_and_requests_go_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command(sums_artifact(tmp_path / "a"), "--port", "0"), "--processes", "2"],
            stdout=subprocess.PIPE, stderr=errors, env=child_environment({"ENDPOINT_MAX_QUEUE": "64"}),
        )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().removeprefix("listening on ").strip()
        answers = send_all(url, [request(number) for number in range(400)], 8)  # their lines fill the pipe
        assert {answer.status for answer in answers} == {200}
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()


# The end of one, and of all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_killed_process_loses_only_what_was_inside_it_and_comes_back(tmp_path: Path, count: int) -> None:
    artifact = sums_artifact(tmp_path / "a")
    server = Server(artifact, tmp_path / "log", {"NEURON_RT_NUM_CORES": "2"}, "--processes", "2")
    seen: list[int] = []
    lock = threading.Lock()
    first = places(server)

    def kill_at_half(got: Got) -> None:
        with lock:
            seen.append(got.number)
            if len(seen) == count // 2:
                os.kill(first[1], signal.SIGKILL)

    try:
        answers = send_all(server.url, [request(number) for number in range(count)], 16, kill_at_half)
        assert server.request("/ping").status == 200
        wait_for(lambda: set(places(server)) == {0, 1})
        now = places(server)
        assert (now[0], now[1] != first[1]) == (first[0], True)
        assert b"NEURON_RT_VISIBLE_CORES=1\0" in Path(f"/proc/{now[1]}/environ").read_bytes()
        wait_for(lambda: b"\nendpoint_processes 2\n" in server.request("/metrics").body)
    finally:
        assert server.stop() == 0
    assert sorted(answer.number for answer in answers) == list(range(count))
    lost = [answer.number for answer in answers if answer.status == 0]
    assert 1 <= len(lost) <= 8  # its half of the connections
    expected = unbatched(artifact, [request(number) for number in range(count)])
    assert all((one.status, one.body) == expected[one.number] for one in answers if one.status != 0)
    assert "process 1 of the server was ended by signal 9" in server.log.read_text()


INSIDE = SLOW.replace("import time", "import os, time").replace(
    "    time", "    open(__file__ + os.environ['NEURON_RT_VISIBLE_CORES'], 'w').close()\n    time"
)


def test_sigterm_lets_the_requests_of_all_processes_finish_together(tmp_path: Path) -> None:
    folder = doubling_artifact(tmp_path / "a", INSIDE)
    server = Server(folder, tmp_path / "log", {"NEURON_RT_NUM_CORES": "2"}, "--processes", "2")
    inside = folder / "code/handler/models/my_handler.py"
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(server.request, body=b"1.2", Content_Type="text/plain") for _ in range(4)]
        wait_for(lambda: all(Path(f"{inside}{core}").exists() for core in (0, 1)))
        time.sleep(0.5)  # for the other two
        server.process.send_signal(signal.SIGTERM)
        assert [answer.result().body for answer in answers] == [b"[2, 2, 2]"] * 4
    assert server.stop() == 0


def test_sigterm_between_loading_and_listening_ends_a_process(tmp_path: Path) -> None:
    """What is loaded is frozen just before the server listens."""
    freeze = "import gc, os, signal\ngc.freeze = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
    (tmp_path / "sitecustomize.py").write_text(freeze)
    path = f"{tmp_path}:{child_environment()['PYTHONPATH']}"
    run = subprocess.run(
        command(doubling_artifact(tmp_path / "a"), "--port", "0"),
        capture_output=True, text=True, timeout=60, check=False, env=child_environment({"PYTHONPATH": path}),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    server = Server(sums_artifact(tmp_path / "a"), tmp_path / "log", None, "--processes", "2")
    left = places(server)
    folder = member(left[0]).folder
    server.process.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(is_serving(child) for child in left.values()))
    assert not folder.exists()
    assert server.stop() == -signal.SIGKILL


def test_an_artifact_that_cannot_be_loaded_ends_all_with_one_line(tmp_path: Path) -> None:
    folder = sums_artifact(tmp_path / "a")
    graph = m.read(folder).graphs[0].file
    (folder / graph).write_bytes(b"I am no graph")
    assert f"{graph}: sha256 is " in fails(folder, "--port", "0", "--processes", "2")


def test_one_process_that_cannot_load_ends_the_others_too(tmp_path: Path) -> None:
    source = "import os\nif os.environ['NEURON_RT_VISIBLE_CORES'] == '1': raise RuntimeError('not here')\n" + SLOW
    folder = doubling_artifact(tmp_path / "a", source)
    run = subprocess.run(
        command(folder, "--port", "0", "--processes", "2"),
        capture_output=True, text=True, timeout=120, check=False, env=child_environment({"NEURON_RT_NUM_CORES": "2"}),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    (line,) = (line for line in run.stderr.splitlines() if not line.startswith("process 0 INFO"))
    assert line.startswith("The model cannot be served: the handler my_handler.py cannot be imported: ")
    assert "not here" in line
    assert [process for process in running() if str(folder).encode() in process] == []


# With processes that are no servers: what the parent alone does ------------------------------------------------------

PARENT = """
import os, socket, sys
from inference_code.workers import supervisor
supervisor._LAST_SECONDS = 0.2
listener = socket.create_server(("127.0.0.1", 0))
sys.exit(supervisor.supervise([sys.executable, "-c", sys.argv[1]], listener, [{}] * 2, 1.0))
"""
CHILD = """
import os, signal, socket, sys, time
from inference_code.workers.channel import ENDED, READY, TAKEN, WorkerContext
member = WorkerContext.read(sys.argv[-1])
channel = socket.socket(fileno=member.channel)
channel.sendall(READY)
"""
DEAF = """
if member.index == 0:
    time.sleep(600)  # takes no connection
while True:
    _, (connection,), _, _ = socket.recv_fds(channel, 1, 1)
    channel.sendall(TAKEN)
    with socket.socket(fileno=connection) as stream:
        stream.recv(1000)
        stream.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    channel.sendall(ENDED)
"""


@contextlib.contextmanager
def parent_of(source: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, source], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=child_environment(),
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()  # so that it clears its folder away


def test_a_process_that_dies_again_and_again_ends_all() -> None:
    with parent_of("import os; os.kill(os.getpid(), 9)") as parent:
        out, error = parent.communicate(timeout=60)
    assert (parent.returncode, out) == (1, "")
    assert "it ended so 5 times within 300 s, and is not started again" in error
    assert "Traceback" not in error


def ask(parent: subprocess.Popen[str]) -> Callable[[], int]:
    """Once it listens: what asks whichever process it chooses."""
    assert parent.stdout is not None
    url = urlsplit(parent.stdout.readline().removeprefix("listening on ").strip())

    def ping() -> int:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        finally:
            connection.close()

    return ping


def test_connections_that_a_dead_process_had_not_taken_go_to_another() -> None:
    with parent_of(CHILD + DEAF) as parent, ThreadPoolExecutor(6) as pool:
        ping = ask(parent)
        answers = [pool.submit(ping) for _ in range(6)]
        time.sleep(0.5)
        assert any(not answer.done() for answer in answers)  # those of the deaf process
        while not all(answer.done() for answer in answers):  # it comes back as deaf
            for child in children(parent.pid):
                with contextlib.suppress(FileNotFoundError, ValueError):
                    if member(child).index == 0:
                        os.kill(child, signal.SIGKILL)
            time.sleep(0.3)
        assert [answer.result() for answer in answers] == [200] * 6


def test_while_no_process_is_ready_connections_wait(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    steps = f"time.sleep(0.7); open({str(ready)!r}, 'w').close(); channel.sendall(READY)"
    slow = CHILD.replace("channel.sendall(READY)", steps)
    with parent_of(slow + DEAF.replace("member.index == 0", "False")) as parent:
        ping = ask(parent)
        assert ping() == 200
        for child in children(parent.pid):
            os.kill(child, signal.SIGKILL)
        ready.unlink()
        assert ping() == 200
        assert ready.exists(), "it was answered before a process was ready again"


def test_a_process_that_takes_nothing_is_given_no_more() -> None:
    with parent_of(CHILD + DEAF) as parent, ThreadPoolExecutor(1) as pool:
        ping = ask(parent)
        first = pool.submit(ping)  # to the deaf one: both had none so far
        time.sleep(0.4)
        assert [ping() for _ in range(10)] == [200] * 10
        assert not first.done()
        parent.terminate()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            first.result()


def test_a_process_that_does_not_end_is_killed() -> None:
    stubborn = CHILD.replace("channel.sendall", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nchannel.sendall")
    with parent_of(stubborn + "time.sleep(600)\n") as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("listening on ")
        parent.terminate()
        _, error = parent.communicate(timeout=60)
    assert parent.returncode == 1
    assert "did not end within 1.2 s, and is killed" in error


# Wrong numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processes", "environment", "part"),
    [
        (
            3,
            {"NEURON_RT_NUM_CORES": "4"},
            "cannot share NEURON_RT_NUM_CORES, 4, in whole copies of 2 core(s): 1, 2 can",
        ),
        (4, {"NEURON_RT_NUM_CORES": "4"}, "4 processes cannot share NEURON_RT_NUM_CORES, 4, in whole copies of 2"),
        (2, {"NEURON_RT_NUM_CORES": "3"}, "it must be a multiple of 2"),
        (2, {"NEURON_RT_VISIBLE_CORES": "4-5"}, "cannot share NEURON_RT_VISIBLE_CORES, 4-5, in whole copies"),
        (2, {"NEURON_RT_VISIBLE_CORES": "many"}, "NEURON_RT_VISIBLE_CORES is 'many', it must name cores, such as 0-3"),
        (2, {"NEURON_RT_VISIBLE_CORES": "0-3,2"}, "which names a core twice"),
        (
            2,
            {"ENDPOINT_WORKERS": "3"},
            "2 processes cannot share ENDPOINT_WORKERS, 3: 1, 3 can; change serve.processes",
        ),
        (2, {"ENDPOINT_MAX_QUEUE": "1"}, "ENDPOINT_MAX_QUEUE is 1; for 2 processes it must be 2 or more"),
        (None, {"ENDPOINT_PROCESSES": "two"}, "ENDPOINT_PROCESSES is 'two', it must be a whole number, at least 1"),
        (None, {"ENDPOINT_PROCESSES": "3", "ENDPOINT_WORKERS": "4"}, "3 processes cannot share ENDPOINT_WORKERS, 4"),
    ],
)
def test_numbers_that_cannot_be_shared_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    processes: int | None,
    environment: dict[str, str],
    part: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    several = [] if processes is None else ["--processes", str(processes)]
    folder = sums_artifact(tmp_path, cores_per_copy=2)
    assert server_command(["--model-dir", str(folder), "--port", "0", *several]) == 1
    error = capsys.readouterr().err
    assert error.startswith("The model cannot be served: ")
    assert part in error
    assert error.count("\n") == 1


def test_no_process_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        server_command(["--model-dir", "x", "--processes", "0"])
    assert caught.value.code == 2
    assert "--processes is 0; it must be 1 or more" in capsys.readouterr().err
