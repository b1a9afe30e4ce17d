"""Whether a model's call releases the GIL is measured, logged and counted."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_code import handler
from inference_code.execution import gil_probe
from inference_code.execution.gil_probe import GilProbe, Pace, measure, watch
from inference_code.handler import load
from inference_code.server.app import Service
from inference_code.settings import Settings
from tests.inference_code.artifacts import doubling_artifact


class ScriptedPace(Pace):
    """A second thread that makes 2000 steps a second beside nothing, and then what `model` lists: steps and seconds."""

    def __init__(self, *model: tuple[int, float]) -> None:
        super().__init__()
        self.left = [(40, 0.02), (36, 0.02), *model]

    def during(self, call: Callable[[], object]) -> tuple[int, float]:
        call()
        return self.left.pop(0)


@pytest.mark.parametrize(
    ("model", "free", "held"),
    [
        ([(2, 0.05)], 0.02, True),
        ([(98, 0.05)], 0.98, False),
        ([(120, 0.05)], 1.0, False),
        ([(1, 0.02)] * 3, 0.025, True),  # short calls are repeated for 50 ms
        ([(30, 0.05)] * 6, 0.3, True),  # in doubt, for 300 ms
        ([(30, 0.05), (98, 0.05)], 0.64, False),  # in doubt no longer
        ([(0, 0.9)], 0.0, True),  # a long call is made once
    ],
)
def test_the_model_is_called_until_the_pace_beside_it_is_plain(
    model: list[tuple[int, float]], free: float, held: bool
) -> None:
    pace = ScriptedPace(*model)
    calls: list[None] = []
    found = measure(lambda: calls.append(None), pace)
    assert found == GilProbe(pytest.approx(free), pytest.approx(sum(seconds for _, seconds in model)))
    assert found.held == held
    assert (len(calls), pace.left) == (len(model), [])
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_python_holds_the_gil_and_sleep_does_not() -> None:
    def python() -> None:
        end = time.perf_counter() + 0.06
        while time.perf_counter() < end:
            pass

    assert measure(python).held
    assert not measure(lambda: time.sleep(0.06)).held


@pytest.mark.parametrize(
    ("found", "workers", "part"),
    [
        (GilProbe(0.98, 0.06), 2, "releases the GIL during inference (free for 98% of 60 ms): one thread per core"),
        (GilProbe(0.02, 0.06), 2, "set serve.processes (ENDPOINT_PROCESSES, --processes) to up to 2"),
        (GilProbe(0.02, 0.06), 1, "this process has one core"),
    ],
)
def test_one_line_says_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    found: GilProbe, workers: int, part: str,
) -> None:  # fmt: skip
    model = load(doubling_artifact(tmp_path), Settings(workers=workers, host_threads=2)).model
    monkeypatch.setattr(gil_probe, "measure", lambda _: found)
    caplog.set_level(logging.INFO, gil_probe.__name__)
    assert watch(model) == found
    (line,) = [record.getMessage() for record in caplog.records if record.name == gil_probe.__name__]
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
