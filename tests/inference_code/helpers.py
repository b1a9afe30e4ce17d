"""Helpers of several test files of this room."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_code import handler
from inference_code.artifact.manifest import PackagedVariant, TensorDescription
from inference_code.errors import Internal
from inference_code.handler import Headers
from inference_code.request import Item
from tests.inference_code.artifacts import (
    Response,
    child_environment,
    command,
)
from tests.inference_code.load import Sent


def error_of(answer: Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/json"
    found = json.loads(answer.body)
    assert found.keys() == {"error", "detail"}
    assert "Traceback" not in found["detail"]
    return found  # type: ignore[no-any-return]


def fails(folder: Path, *arguments: str, **environment: str) -> str:
    """Standard error of a server that must end with 1 and never listen."""
    run = subprocess.run(
        command(folder, *(arguments or ("--port", "0"))),
        capture_output=True, text=True, timeout=120, check=False, env=child_environment(environment),
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    return run.stderr


SLOW = """
import time
import numpy as np
def preprocess(request):
    time.sleep(float(request.body))
    return np.ones(3)
def postprocess(outputs, item):
    return outputs
"""


def wait_for(condition: Any) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 s")


LONG = 30  # seconds after which a test that waits for another thread has failed


class Gate:
    """A device that doubles; while `held`, each call waits for its `go`."""

    def __init__(self, *, held: bool = False) -> None:
        self.held = held
        self.begun: queue.SimpleQueue[tuple[int, str, list[float]]] = queue.SimpleQueue()
        self._go = threading.Semaphore(0)

    def __call__(self, core: int, entry: PackagedVariant, arrays: list[Any]) -> list[Any]:
        self.begun.put((core, entry.file, arrays[0][:, 0].tolist()))
        if self.held:
            assert self._go.acquire(timeout=LONG)
        if (arrays[0] == 13).any():
            raise Internal("the device stumbled")
        return [arrays[0] * 2]

    def next(self) -> tuple[int, str, list[float]]:
        return self.begun.get(timeout=LONG)

    def go(self, times: int = 1) -> None:
        for _ in range(times):
            self._go.release()


def graph(batch: int, length: int = 3, role: str = "main") -> PackagedVariant:
    return PackagedVariant(
        role=role,
        bucket={"length": length},
        batch_size=batch,
        file=f"{role}-{length}-{batch}.pt",
        inputs=(TensorDescription("x", (batch, length), "float32"),),
        outputs=(TensorDescription("y", (batch, length), "float32"),),
        structure={"kind": "dict", "entries": [["y", {"kind": "tensor", "index": 0}]]},
    )


def item(value: float, length: int = 3, **options: Any) -> Item:
    return Item({"x": np.full(length, value, np.float32)}, **options)


def items(number: int) -> list[dict[str, Any]]:
    """What request `number` sends: one item, or several of which one is bad."""
    chance = random.Random(number)
    found = [
        {"x": [number + place, chance.random(), -1.5], "n": [number, place]}
        for place in range(1 if number % 5 else chance.randrange(2, 9))
    ]
    if len(found) > 1:
        found[chance.randrange(len(found))]["x"] = [1]
    return found


JSON = "Content-Type: application/json\r\n"


def request(number: int) -> Sent:
    value = items(number)
    return Sent(number, json.dumps(value if len(value) > 1 else value[0]).encode(), JSON)


def unbatched(artifact: Path, requests: list[Sent]) -> dict[int, tuple[int, bytes]]:
    """What each request is answered when nothing else is there."""
    served = handler.model_fn(str(artifact))
    answers = {}
    for sent in requests:
        done = handler.predict_fn(handler.input_fn(sent.body, "application/json", Headers()), served)
        reply = served.output(done)
        answers[sent.number] = (reply.status, reply.body)
    return answers


def children(process: int) -> list[int]:
    """The ids of a process's children."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_serving(process: int) -> bool:
    try:
        return b"inference_code.server" in Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def resident(process: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def without_httptools(folder: Path, parser: str) -> dict[str, str]:
    """The environment in which the server reads HTTP with `parser`."""
    if parser == "httptools":
        pytest.importorskip("httptools")
        return {}
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['httptools'] = None\n")
    return {"PYTHONPATH": f"{hidden}{os.pathsep}{child_environment()['PYTHONPATH']}"}


def exchange(stream: socket.socket, sent: bytes, half_close: bool) -> bytes:
    """Send, say that there is no more or wait, and read until the other side closes or is silent for a while."""
    received = b""
    stream.settimeout(0.2)
    with contextlib.suppress(OSError):  # it may close while we still send; then that is its answer
        stream.sendall(sent)
        if half_close:
            stream.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while piece := stream.recv(65_536):
            received += piece
    return received
