"""A handler of one's own that calls the model more than once an item."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from inference_code import handler
from inference_code.codecs.responses import Reply
from inference_code.errors import Unavailable
from inference_code.handler import Headers, ModelHandler
from inference_code.server.pipeline import Pipeline
from inference_code.server.server_request import ServerRequest
from inference_code.settings import Settings
from tests.inference_code.artifacts import Server, doubling_artifact

# Doubles until a number is above 100; what lands above 150 is the caller's fault.
HANDLER = """\
import json
import threading
import numpy as np
from inference_code.request import Item

def preprocess(request):
    return [{"x": np.asarray(one, np.float32)} for one in json.loads(request.body)]

def decode(item, call):
    x, rounds = item.inputs["x"], 0
    while x.max() < 100:
        (x,) = call([Item({"x": x})])
        rounds += 1
    if x.max() > 150:
        raise ValueError("beyond 150")
    return x, rounds

def postprocess(outputs, item):
    x, rounds = outputs
    return {"x": x.tolist(), "rounds": rounds}
"""
BODY = b"[[1, 2, 3.5], [50, 60, 70], [1, 2, 45]]"
ANSWERS = [
    {"x": [32.0, 64.0, 112.0], "rounds": 5},
    {"x": [100.0, 120.0, 140.0], "rounds": 1},
    {"error": "bad_request", "detail": "beyond 150"},
]

JSON = {"content-type": "application/json"}


def test_the_loop_runs_in_the_native_server_and_its_log_says_what_it_took(tmp_path: Path) -> None:
    server = Server(doubling_artifact(tmp_path / "model", HANDLER), tmp_path / "log")
    try:
        answer = server.request(body=BODY, Content_Type="application/json")
    finally:
        server.stop()
    assert json.loads(answer.body) == ANSWERS
    (line,) = [line for line in server.lines if line.get("event") == "request"]
    assert line["bucket"] != "none"
    assert line["device_ms"] > 0


def test_the_loop_runs_under_the_stock_containers_functions(tmp_path: Path) -> None:
    served = handler.model_fn(str(doubling_artifact(tmp_path / "model", HANDLER)))
    done = handler.predict_fn(handler.input_fn(BODY, "application/json", Headers()), served)
    assert json.loads(handler.output_fn(done, "application/json")[0]) == ANSWERS


def test_a_request_that_is_given_up_calls_the_device_no_more(tmp_path: Path) -> None:
    endless = HANDLER.replace("x.max() < 100", "True").replace('Item({"x": x})', 'Item({"x": x * 0})')
    served = handler.load(doubling_artifact(tmp_path / "model", endless), Settings())
    calls: list[float] = []
    run_on = served.model.run_on

    def counted(core: int, graph: Any, arrays: Any) -> Any:
        calls.append(time.monotonic())
        return run_on(core, graph, arrays)

    served.model.run_on = counted
    pipeline, replies = Pipeline(ModelHandler(served), Settings()), list[Reply]()
    request = ServerRequest(JSON, body=b"[[1, 2, 3]]", respond=replies.append)
    pipeline.start(request)
    _until(lambda: len(calls) > 3)
    pipeline.cancel(request, Unavailable("gone"))
    time.sleep(0.1)  # what is on the device already is not stopped
    reached = len(calls)
    time.sleep(0.2)
    assert len(calls) == reached
    assert [reply.status for reply in replies] == [503]
    assert pipeline.close(5)


def _until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_array_takes_its_loop_to_the_role_that_is_there(tmp_path: Path) -> None:
    bare = HANDLER.replace('{"x": np.asarray(one, np.float32)}', "np.asarray(one, np.float32)")
    loaded = handler.load(doubling_artifact(tmp_path / "model", bare), Settings())
    (work,) = ModelHandler(loaded).input(b"[[50, 60, 70]]", "application/json", Headers())
    assert work.item is not None
    np.testing.assert_array_equal(work.item.inputs["x"], np.float32([50, 60, 70]))


def test_steps_of_different_requests_share_a_batch(tmp_path: Path) -> None:
    served = handler.load(doubling_artifact(tmp_path / "model", HANDLER), Settings(workers=1))  # compiled batch 2
    run_on, held, batches = served.model.run_on, threading.Event(), list[list[float]]()

    def slow(core: int, graph: Any, arrays: Any) -> Any:
        batches.append([float(row[0]) for row in arrays[0]])
        assert held.wait(20)
        return run_on(core, graph, arrays)

    served.model.run_on = slow
    pipeline, replies = Pipeline(ModelHandler(served), Settings(workers=1)), list[Reply]()
    for count, first in enumerate((60, 65, 70)):
        body = json.dumps([[first, first, first]]).encode()
        pipeline.start(ServerRequest(JSON, body=body, respond=replies.append))
        _until(lambda count=count: len(batches) == 1 and pipeline.waiting() == count)
    held.set()
    _until(lambda: len(replies) == 3)
    assert batches == [[60, 60], [65, 70]]  # the first alone, filled up with itself; the others together
    assert sorted(json.loads(reply.body)[0]["x"][0] for reply in replies) == [120, 130, 140]
    assert pipeline.close(5)
