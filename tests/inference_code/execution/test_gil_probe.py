"""Whether a model's call releases the GIL is measured, logged and counted."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_code import handler
from inference_code.execution import gil_probe
from inference_code.execution import model as runtime
from inference_code.execution.gil_probe import GilProbe, measure, watch
from inference_code.handler import load
from inference_code.server.app import Service
from inference_code.settings import Settings
from tests.inference_code.artifacts import doubling_artifact


def python_for(seconds: float) -> int:
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        count += 1
    return count


@pytest.mark.parametrize("seconds", [0.0002, 0.006, 0.05])
def test_python_holds_the_gil(seconds: float) -> None:
    assert measure(lambda: python_for(seconds)).held


@pytest.mark.parametrize("seconds", [0.001, 0.006, 0.05])
def test_sleep_releases_it(seconds: float) -> None:
    found = measure(lambda: time.sleep(seconds))
    assert not found.held
    assert 0.05 <= found.seconds < 1
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_a_matrix_product_releases_it() -> None:
    matrix = torch.rand(700, 700)
    assert not measure(lambda: matrix @ matrix).held


def test_nothing_is_called_for_long() -> None:
    calls = []
    started = time.perf_counter()
    measure(lambda: calls.append(time.sleep(0.3)))
    assert len(calls) == 1
    assert time.perf_counter() - started < 2


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.mark.parametrize(
    ("call", "workers", "held", "part"),
    [
        (time.sleep, 2, False, "releases the GIL"),
        (python_for, 2, True, "set serve.processes (ENDPOINT_PROCESSES, --processes) to up to 2"),
        (python_for, 1, True, "this process has one core"),
    ],
)
def test_one_line_says_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, workers: int, held: bool, part: str
) -> None:
    original = runtime._call
    monkeypatch.setattr(runtime, "_call", lambda *arguments: (call(0.006), original(*arguments))[1])
    model = load(doubling_artifact(tmp_path), Settings(workers=workers, host_threads=2)).model
    lines = Lines()
    monkeypatch.setattr(gil_probe, "_log", logging.Logger("interpreter"))
    gil_probe._log.addHandler(lines)
    found = watch(model)
    assert found is not None
    assert found.held == held
    (line,) = lines.lines
    assert part in line


def test_a_call_that_takes_long_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(doubling_artifact(tmp_path), Settings()).model
    model.warm_up_seconds = [1.5 for _ in model.warm_up_seconds]
    monkeypatch.setattr(model, "run", lambda *_: pytest.fail("it was called"))
    assert watch(model) is None


def test_the_stock_container_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gil_probe, "measure", lambda _: pytest.fail("it was measured"))
    handler.model_fn(str(doubling_artifact(tmp_path)))


@pytest.mark.parametrize(("gil", "count"), [(GilProbe(0.1, 0.02), 1.0), (GilProbe(0.9, 0.02), 0.0), (None, 0.0)])
def test_it_is_a_metric(tmp_path: Path, gil: GilProbe | None, count: float) -> None:
    service = Service(
        handler.ModelHandler(load(doubling_artifact(tmp_path), Settings())), Settings(), lambda _: None, gil=gil
    )
    try:
        assert service.state()["endpoint_processes_holding_gil"] == [([], [count])]
    finally:
        assert service.close(5)
