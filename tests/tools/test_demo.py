"""The demo's ways out: nothing it started stays, and what a restart left behind is no server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import demo


@pytest.fixture
def road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> demo.Road:
    monkeypatch.setattr(demo, "PYTHON", sys.executable)
    return demo.Road(tmp_path)


def test_an_interrupt_while_it_starts_leaves_no_process(road: demo.Road, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.subprocess, "Popen", Popen)
    monkeypatch.setattr(demo.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        road.start()
    assert [process.poll() is not None for process in started] == [True]


def test_the_state_file_of_a_server_that_is_gone_is_nothing_up(road: demo.Road) -> None:
    road.aws.mkdir()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (road.aws / "server.json").write_text(json.dumps({"url": "http://localhost:1", "pid": ended.pid, "port": 1}))
    assert not road.running()
    road.stop()  # nothing to stop, and nothing to complain of
