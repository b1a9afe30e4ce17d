"""The routes in this process, with a device that waits for the test: what is busy, late, gone or draining."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import re
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from inference_code import handler
from inference_code.codecs.responses import Reply
from inference_code.observability.cloudwatch_emf import CloudWatch
from inference_code.observability.log_writer import Writer
from inference_code.observability.metrics import Counter, Histogram
from inference_code.server import process
from inference_code.server.app import Service
from inference_code.settings import Limits, Settings
from tests.inference_code.artifacts import Response, Server, add_graph, doubling_artifact, finish, npy
from tests.inference_code.helpers import LONG, SLOW, Gate, error_of, wait_for

NPY = {"content-type": "application/x-npy", "accept": "application/json"}


class House:
    """A Service on the doubling model (compiled batch 2) whose device is `gate`."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.served = handler.model_fn(str(doubling_artifact(folder)))
        self.gate = Gate()
        self.served.loaded.model.run_on = self.gate
        self.written: list[bytes] = []
        self.service = Service(self.served, Settings(**settings), self.written.append)
        self.app = self.service

    async def ask(
        self, value: float | bytes, gone: asyncio.Event | None = None, path: str = "/invocations", **headers: str
    ) -> Response:
        """One request by ASGI; the client leaves when `gone` is set, and is sent nothing then (status 0)."""
        body = value if isinstance(value, bytes) else npy(np.full(3, value, np.float32))
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        named = {name.replace("_", "-").lower(): text for name, text in headers.items()}
        raw = [(name.encode(), text.encode()) for name, text in (NPY | named).items()]
        method = "GET" if path != "/invocations" else "POST"
        scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "root_path": ""}
        await self.app(scope, receive, send)  # type: ignore[arg-type]
        if not sent:
            return Response(0, {}, b"")
        answered = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
        return Response(sent[0]["status"], answered, sent[1]["body"])

    async def begun(self) -> list[float]:
        """The values of the next batch that reaches the device."""
        return (await asyncio.get_running_loop().run_in_executor(None, self.gate.next))[2]

    async def occupy(self) -> asyncio.Future[Response]:
        self.gate.held = True
        busy = asyncio.ensure_future(self.ask(-1))
        assert (await self.begun())[0] == -1
        return busy

    async def until_waiting(self, items: int) -> None:
        for _ in range(LONG * 100):
            if self.service._pipeline.waiting() == items:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.service._pipeline.waiting()} items wait, not {items}")

    def lines(self, event: str | None = "request") -> list[dict[str, Any]]:
        lines = map(json.loads, b"".join(self.written).splitlines())
        return [line for line in lines if line.get("event") == event]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def build(**settings: Any) -> House:
        houses.append(House(tmp_path / str(len(houses)), **settings))
        return houses[-1]

    yield build
    for house in houses:
        house.gate.go(1000)
        assert house.service.close(LONG)


def run(work: Awaitable[Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 4 * LONG))  # type: ignore[arg-type]


def doubled(answer: Response) -> float:
    assert answer.status == 200, answer.body
    return float(json.loads(answer.body)["outputs"][0])


def test_requests_of_several_callers_share_a_batch_while_the_core_is_busy(make: Any) -> None:
    async def work() -> None:
        house = make()
        busy = await house.occupy()
        waiting = [asyncio.ensure_future(house.ask(value)) for value in (1, 2)]
        await house.until_waiting(2)
        house.gate.go()
        assert sorted(await house.begun()) == [1, 2]
        house.gate.go()
        assert [doubled(await one) for one in (busy, *waiting)] == [-2, 2, 4]

    run(work())


def test_a_request_whose_client_has_gone_never_reaches_the_device(make: Any) -> None:
    async def work() -> None:
        house = make()
        busy = await house.occupy()
        gone = asyncio.Event()
        left = asyncio.ensure_future(house.ask(1, gone))
        await house.until_waiting(1)
        gone.set()
        assert (await left).status == 0
        await house.until_waiting(0)
        house.gate.held = False
        house.gate.go()
        assert doubled(await busy) == -2
        assert doubled(await house.ask(5)) == 10
        assert (await house.begun()) == [5, 5]
        house.service.close(LONG)
        assert [line.get("error") for line in house.lines()] == ["client_gone", None, None]
        assert "endpoint_clients_gone_total 1\n" in (await house.ask(b"", path="/metrics")).body.decode()

    run(work())


def test_a_request_whose_time_is_up_is_503_and_never_reaches_the_device(make: Any) -> None:
    async def work() -> None:
        house = make(deadline_s=0.2)
        busy = await house.occupy()
        for late in (await house.ask(1), await busy):
            assert (late.status, late.headers["retry-after"]) == (503, "1")
            assert error_of(late)["detail"] == "request deadline of 0.2 s exceeded; retry"
        await house.until_waiting(0)
        house.gate.go()
        house.service.close(LONG)
        assert house.gate.begun.empty()

    run(work())


def test_draining_answers_what_is_not_done_in_time_with_503_and_ping_says_so(make: Any) -> None:
    async def work() -> None:
        house = make(drain_s=0.2)
        assert (await house.ask(b"", path="/ping")).status == 200
        busy = await house.occupy()
        waiting = asyncio.ensure_future(house.ask(1))
        await house.until_waiting(1)
        house.service.drain()
        assert (await house.ask(b"", path="/ping")).status == 503
        for answer in (await busy, await waiting):
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert "shutting down" in error_of(answer)["detail"]

    run(work())


def test_an_answer_does_not_wait_for_the_garbage_collector_to_be_let_go(make: Any) -> None:
    """Of many large answers in reference cycles the memory would stay for minutes."""

    async def work() -> None:
        house = make()
        busy = await house.occupy()
        await asyncio.sleep(0.05)  # until the client is watched
        house.gate.go()
        assert doubled(await busy) == -2
        await asyncio.sleep(0.05)
        assert [one for one in gc.get_objects() if isinstance(one, Reply)] == []

    gc.collect()
    gc.disable()
    try:
        run(work())
    finally:
        gc.enable()


def test_a_place_is_taken_by_requests_whose_bodies_are_whole(make: Any) -> None:
    async def work() -> None:
        house = make(max_queue=1, max_bodies=3)
        slow = [Slow(house, content_length="10") for _ in range(3)]
        await asyncio.sleep(0)
        refused = await house.ask(1)
        assert (refused.status, error_of(refused)["detail"]) == (
            503, "3 bodies are being read (ENDPOINT_MAX_BODIES); retry"
        )  # fmt: skip
        slow[0].goes.set()
        await slow[0].answered
        assert doubled(await house.ask(1)) == 2
        assert (await house.begun())[0] == 1
        busy = await house.occupy()
        assert (await house.ask(1)).status == 503
        house.gate.go()
        assert doubled(await busy) == -2
        for one in slow:
            one.goes.set()
        await asyncio.gather(*(one.answered for one in slow))

    run(work())


class Slow:
    """A client that sends the head of a request and then, until `goes`, nothing."""

    def __init__(self, house: House, **headers: str) -> None:
        self.sent: list[dict[str, Any]] = []
        self.goes = asyncio.Event()
        raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": raw}
        self.answered = asyncio.ensure_future(house.app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> dict[str, Any]:
        await self.goes.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def test_at_the_end_of_the_drain_nobody_waits_for_what_a_client_still_has_to_send(make: Any) -> None:
    """Neither for a body nor for the rest of one that was refused: uvicorn would end them with 500."""

    async def work() -> None:
        house = make(drain_s=0.05, limits=Limits(request_bytes=1000))
        half, refused = Slow(house, content_length="1000"), Slow(house, content_length="1001")
        await asyncio.sleep(0)
        house.service.drain()
        await asyncio.gather(half.answered, refused.answered)
        assert [one.sent[0]["status"] for one in (half, refused)] == [503, 413]
        assert json.loads(half.sent[1]["body"])["detail"] == "server is shutting down; retry"
        assert not half.sent[-1]["more_body"]
        assert (await house.ask(1)).status == 503
        house.service.close(LONG)
        assert sorted(line["status"] for line in house.lines()) == [413, 503, 503]

    run(work())


def test_a_refused_request_whose_body_still_comes_takes_no_place_of_another(make: Any) -> None:
    async def work() -> None:
        house = make(max_queue=1, limits=Limits(request_bytes=1000))
        refused = Slow(house, content_length="1001")
        await asyncio.sleep(0)
        assert refused.sent[0]["status"] == 413
        assert doubled(await house.ask(1)) == 2
        refused.goes.set()
        await refused.answered

    run(work())


@pytest.mark.parametrize("where", ["preprocess", "postprocess", "predict_fn"])
def test_a_handler_that_exits_is_500_and_ends_no_thread(tmp_path: Path, where: str) -> None:
    """Each of more requests than there are threads is answered at once, not at its deadline."""
    functions = {
        "preprocess": "def preprocess(request): sys.exit(3)\ndef postprocess(outputs, item): return 1\n",
        "postprocess": "def preprocess(request): return np.ones(3)\ndef postprocess(outputs, item): sys.exit(3)\n",
        "predict_fn": "def input_fn(body, content_type): return 1\ndef predict_fn(data, model): sys.exit(3)\n",
    }[where]
    artifact = doubling_artifact(tmp_path, f"import sys\nimport numpy as np\n{functions}")
    service = Service(handler.model_fn(str(artifact)), Settings(host_threads=1), lambda _: None)

    async def work() -> None:
        house = House.__new__(House)
        house.app = service
        for _ in range(4):
            answer = await house.ask(1)
            assert (answer.status, error_of(answer)["detail"][:11]) == (500, "SystemExit;")

    run(work())
    assert service.close(LONG)


def test_every_request_is_one_line_with_its_id(make: Any) -> None:
    house = make()

    async def work() -> None:
        named = await house.ask(1, x_request_id="abc-1")
        assert named.headers["x-request-id"] == "abc-1"
        assert (await house.ask(1, x_amzn_sagemaker_inference_id="i.2")).headers["x-request-id"] == "i.2"
        other = await house.ask(b"nonsense", x_request_id="two\nlines {}")
        assert re.fullmatch("[0-9a-f]{32}", other.headers["x-request-id"])

    run(work())
    house.service.close(LONG)
    good, _, bad = house.lines()
    assert (good["request_id"], good["status"], good["items"], good["endpoint"]) == ("abc-1", 200, 1, "tiny")
    assert (good["bucket"], good["request_bytes"]) == ("n=1", len(npy(np.ones(3, np.float32))))
    parts = ("preprocess_ms", "queue_ms", "device_ms", "postprocess_ms")
    assert 0 <= sum(good[part] for part in parts) <= good["total_ms"]
    assert (bad["status"], json.loads(bad["error"])["error"], bad["bucket"]) == (400, "bad_request", "none")


def test_metrics_are_prometheus_text_and_add_up(make: Any) -> None:
    house = make()

    async def work() -> str:
        for value in (1, 2, 3):
            await house.ask(value)
        await house.ask(npy(np.ones((2, 3), np.float32)))
        await house.ask(b"nonsense")
        answer = await house.ask(b"", path="/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return answer.body.decode()

    text = run(work())
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    place = '{bucket="n=1",core="0"}'
    assert samples['endpoint_requests_total{status="200"}'] == "4"
    assert samples['endpoint_requests_total{status="400"}'] == "1"
    assert (samples[f"endpoint_batch_items_count{place}"], samples[f"endpoint_batch_items_sum{place}"]) == ("4", "5")
    assert samples[f"endpoint_queue_seconds_count{place}"] == "5"
    assert samples[f"endpoint_padding_share_sum{place}"] == "1.5"  # three batches of two held one item each
    assert samples['endpoint_preprocess_seconds_count{bucket="none"}'] == "1"
    assert samples["endpoint_requests_inside"] == "0"
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert all(re.sub(r"_(bucket|sum|count)$", "", key.split("{")[0]) in names | {key.split("{")[0]} for key in samples)


def test_cloudwatch_lines_hold_every_value_once(make: Any) -> None:
    house = make()

    async def work() -> None:
        for _ in range(130):
            await house.ask(1)

    run(work())
    house.service.close(LONG)
    lines = [line for line in house.lines(None) if "_aws" in line]
    counted: dict[str, int] = {}
    for line in lines:
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "InferentiaEndpoints"
        assert directive["Dimensions"][0] == ["Endpoint"]
        assert all(name in line for dimensions in directive["Dimensions"] for name in dimensions)
        for metric in directive["Metrics"]:
            assert metric["Unit"] in ("Milliseconds", "Count", "Percent")
            assert 1 <= len(line[metric["Name"]]) <= 100
            counted[metric["Name"]] = counted.get(metric["Name"], 0) + len(line[metric["Name"]])
    assert counted == dict.fromkeys(
        ("QueueTime", "DeviceTime", "BatchSize", "PaddingWaste", "PreprocessTime", "PostprocessTime"), 130
    )
    assert {(line["Bucket"], line.get("Core")) for line in lines if "BatchSize" in line} == {("n=1", None)}
    assert {value for line in lines for value in line.get("PaddingWaste", ())} == {50}


def test_cloudwatch_lines_come_when_they_are_due() -> None:
    now, lines = [1000.0], list[Any]()
    collected = CloudWatch("e", lines.append, 10, lambda: now[0])
    collected.request("b", 0.001, 0.002)
    collected.tick()
    assert lines == []
    now[0] += 10
    collected.tick()
    assert [(line["PreprocessTime"], line["_aws"]["Timestamp"]) for line in lines] == [([1.0], 1_010_000)]
    now[0] += 10
    collected.tick()
    assert len(lines) == 1


def test_nobody_reading_the_output_holds_up_no_request() -> None:
    stuck, dropped = threading.Event(), list[int]()
    writer = Writer(lambda _: stuck.wait(LONG) and None, lambda: dropped.append(1))
    for number in range(10_300):
        writer.put({"n": number})
    assert 200 <= len(dropped) <= 300  # a hundred at most are being written
    writer.close(0.01)
    stuck.set()


def test_a_closed_output_is_counted_and_survived() -> None:
    dropped = threading.Event()

    def write(_: bytes) -> None:
        raise BrokenPipeError

    writer = Writer(write, dropped.set)
    writer.put({})
    assert dropped.wait(LONG)
    writer.close(LONG)


def test_label_values_are_escaped_and_buckets_cumulative() -> None:
    counter = Counter("c", "Text.", ("label",))
    counter.add('a"b\\c\nd')
    assert list(counter.lines(counter.numbers())) == ['c{label="a\\"b\\\\c\\nd"} 1']
    histogram = Histogram("h", "Text.", (), (1, 2))
    for value in (0.5, 1, 1.5, 3):
        histogram.observe(value)
    assert list(histogram.lines(histogram.numbers())) == [
        'h_bucket{le="1"} 2', 'h_bucket{le="2"} 3', 'h_bucket{le="+Inf"} 4', "h_sum 6", "h_count 4",
    ]  # fmt: skip


def test_a_handler_that_hangs_does_not_outlive_the_drain(tmp_path: Path) -> None:
    source = SLOW.replace("    time", "    open(__file__ + '.in', 'w').close()\n    time")
    folder = doubling_artifact(tmp_path / "a", source)
    server = Server(folder, tmp_path / "log", {"ENDPOINT_DRAIN_S": "0.3"})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.request, body=b"600", Content_Type="text/plain")
        wait_for((folder / "code/handler/models/my_handler.py.in").exists)
        server.process.send_signal(signal.SIGTERM)
        assert answer.result(LONG).status == 503
    assert server.stop() == 1
    assert "did not end within the drain" in server.log.read_text()
    assert [line["status"] for line in server.lines if line.get("event") == "request"] == [503]


def test_over_http_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    source = SLOW.replace("    time", "    open(__file__ + '.in', 'w').close()\n    time")
    folder = doubling_artifact(tmp_path / "a", source)
    server = Server(folder, tmp_path / "log", {"ENDPOINT_ALLOWED_HOSTS": "x"})
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=LONG) as stream:
        stream.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n2")
        wait_for((folder / "code/handler/models/my_handler.py.in").exists)
    wait_for(lambda: b"clients_gone_total 1\n" in server.request("/metrics").body)
    assert server.request(body=b"0", Content_Type="text/plain").status == 200
    assert server.stop() == 0
    batches = [line for line in server.lines if "BatchSize" in line]
    assert [line["BatchSize"] for line in batches] == [[1]]


def test_over_http_a_client_that_leaves_the_queue_never_reaches_the_device(tmp_path: Path) -> None:
    """A real connection that is closed while its request waits for a device that is busy."""
    folder = tmp_path / "a"
    server = Server(slow_artifact(folder), tmp_path / "log", {"ENDPOINT_ALLOWED_HOSTS": "x"})
    body = npy(np.ones(3, np.float32))
    head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    address = urlsplit(server.url)

    def says(text: bytes) -> Callable[[], bool]:
        return lambda: text in server.request("/metrics").body

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(server.request, body=body, Content_Type="application/x-npy")
        wait_for(says(b"requests_inside 1\n"))
        with socket.create_connection((address.hostname, address.port), timeout=LONG) as stream:
            stream.sendall(head.encode() + body)
            wait_for(says(b"items_waiting 1\n"))
        wait_for(says(b"clients_gone_total 1\n"))
        assert not busy.done(), "the device was not busy long enough for this test"
        assert says(b"items_waiting 0\n")()
        assert busy.result(LONG).status == 200
    assert server.stop() == 0
    assert [line["BatchSize"] for line in server.lines if "BatchSize" in line] == [[1]]
    assert sorted(str(line["status"]) for line in server.lines if line.get("event") == "request") == ["200", "None"]


def slow_artifact(folder: Path) -> Path:
    """A model whose call takes two seconds."""

    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    graph = add_graph(folder, Slow(), {"x": torch.zeros(1, 3)})
    sleeping = "import time\nfrom inference_code.execution.model import Model\nrun_on = Model.run_on\n"
    sleeping += "Model.run_on = lambda *arguments: (time.sleep(2), run_on(*arguments))[1]\n"
    source = sleeping + "from inference_code.tasks.tensor import postprocess, preprocess\n"
    path = folder / "code" / "handler" / "slow.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    return finish(folder, (graph,), "of my own", handler="handler/slow.py")


def test_the_whole_end_fits_into_the_thirty_seconds_of_sagemaker() -> None:
    last = inspect.signature(Writer.close).parameters["seconds"].default
    drain = Settings().drain_s
    assert drain + process.LAST_ANSWERS_SECONDS + process.THREADS_SECONDS + last < 30


@pytest.mark.slow
def test_with_its_own_settings_a_server_that_hangs_ends_within_thirty_seconds(tmp_path: Path) -> None:
    source = SLOW.replace("    time", "    open(__file__ + '.in', 'w').close()\n    time")
    folder = doubling_artifact(tmp_path / "a", source)
    server = Server(folder, tmp_path / "log")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.request, body=b"600", Content_Type="text/plain")
        wait_for((folder / "code/handler/models/my_handler.py.in").exists)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 1, "SageMaker kills a container 30 s after SIGTERM"
        assert answer.result(LONG).status == 503
    server.stop()
