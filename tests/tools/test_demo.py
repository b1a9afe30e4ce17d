"""The demo's ways out: nothing it started stays, and what a restart left behind is no server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.embedded_aws.artifacts import artifact
from tests.embedded_aws.helpers import Hosting, alive
from tests.embedded_aws.running import MODULE, Aws, wait_for
from tools import demo


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> demo.Rehearsal:
    monkeypatch.setattr(demo, "PYTHON", sys.executable)
    return demo.Rehearsal(tmp_path)


def test_an_interrupt_while_it_starts_leaves_no_process(
    rehearsal: demo.Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        rehearsal.start(stays=True)
    assert [process.poll() is not None for process in started] == [True]


def test_the_state_file_of_a_server_that_is_gone_is_nothing_up(rehearsal: demo.Rehearsal) -> None:
    rehearsal.aws.mkdir()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (rehearsal.aws / "server.json").write_text(json.dumps({"url": "http://localhost:1", "pid": ended.pid, "port": 1}))
    assert not rehearsal.running()
    rehearsal.stop()  # nothing to stop, and nothing to complain of


def test_one_at_a_time_says_who_is_at_work(tmp_path: Path) -> None:
    with demo.only_one("up", tmp_path):
        before = sorted(tmp_path.rglob("*"))
        holder = rf"`make up` \(process {os.getpid()}, since .*\) is at work"
        with pytest.raises(demo.DemoError, match=holder), demo.only_one("demo", tmp_path):
            pytest.fail("two at once")
        assert sorted(tmp_path.rglob("*")) == before
    with demo.only_one("demo", tmp_path):
        pass


def test_a_killed_demo_holds_no_lock(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from tools import demo\n"
        "with demo.only_one('demo', pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, cwd=demo.ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(demo.DemoError, match=f"process {holder.pid}"), demo.only_one("demo", tmp_path):
            pass
        holder.kill()
    with demo.only_one("demo", tmp_path):
        pass


STARTED = """\
import pathlib, sys, time
from tools import demo
demo.PYTHON = sys.executable
rehearsal = demo.Rehearsal(pathlib.Path(sys.argv[1]))
rehearsal.start(stays=sys.argv[2] == "up")
print("started", flush=True)
time.sleep(600)
"""


@contextmanager
def killed_after_start(folder: Path, what: str) -> Iterator[tuple[Aws, subprocess.Popen[str], psutil.Process]]:
    """A process that started the embedded AWS as `what` does, to be killed, and that AWS's process."""
    command = [sys.executable, "-c", STARTED, str(folder), what]
    with subprocess.Popen(command, cwd=demo.ROOT, stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "started\n"
            state = json.loads((folder / "aws" / "server.json").read_text())
            server = psutil.Process(state.pop("pid"))
            yield Aws(folder / "aws", starter, **state), starter, server
        finally:
            starter.kill()


def test_a_killed_demo_leaves_neither_its_aws_nor_a_worker(tmp_path: Path) -> None:
    with killed_after_start(tmp_path, "run") as (aws, starter, server):
        hosting = Hosting(aws, "killed")
        hosting.up(hosting.config("one", artifact("one")))
        below = server.children(recursive=True)
        assert len(below) >= 2, "keeper and worker"
        starter.kill()
        starter.wait()
        wait_for(lambda: not any(alive(one.pid) for one in (server, *below)), "every process is gone")


def test_what_stays_on_purpose_survives_the_process_that_started_it(tmp_path: Path) -> None:
    with killed_after_start(tmp_path, "up") as (aws, starter, server):
        starter.kill()
        starter.wait()
        assert aws.client("s3").list_buckets()["Buckets"] == []
        subprocess.run([*MODULE, "down", "--directory", str(aws.directory)], cwd=demo.ROOT, check=True)
        assert not alive(server.pid)


@pytest.mark.parametrize("tool", ["demo.py", "install.py"])
def test_ctrl_c_while_it_imports_prints_no_traceback(tmp_path: Path, tool: str) -> None:
    """A module that every tool imports waits; the signal comes meanwhile."""
    (tmp_path / "argparse.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(demo.ROOT / "tools" / tool), "down"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (-signal.SIGINT, "")


def old_python(tmp_path: Path, version: str) -> subprocess.CompletedProcess[str]:
    """install.py in an interpreter that says it is of another version."""
    program = (
        "import runpy, sys\n"
        f"sys.version_info = {version}\n"
        f"sys.argv = ['install.py']; runpy.run_path({str(demo.ROOT / 'tools/install.py')!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=tmp_path)


@pytest.mark.parametrize("version", ["(3, 10, 13, 'final', 0)", "(3, 11, 0, 'candidate', 1)", "(3, 14, 0, 'final', 0)"])
def test_a_python_that_does_not_fit_is_refused_by_name(tmp_path: Path, version: str) -> None:
    answer = old_python(tmp_path, version)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"setup failed: Python 3.11, 3.12 or 3.13 is needed, {sys.executable} is ")
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("tool", ["git", "make"])
def test_a_tool_that_is_missing_or_broken_is_refused_by_name(tmp_path: Path, tool: str) -> None:
    for name in {"git", "make"} - {tool}:
        (tmp_path / name).symlink_to("/bin/true")
    command = [sys.executable, str(demo.ROOT / "tools/install.py")]
    for make_it in (lambda: None, lambda: (tmp_path / tool).symlink_to("/bin/false")):
        make_it()
        answer = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": str(tmp_path)})
        said = f"setup failed: {tool} is missing or does not run: apt-get install {tool}\n"
        assert (answer.returncode, answer.stderr) == (1, said)
