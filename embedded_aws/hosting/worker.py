"""One worker process: started from an unpacked artifact, watched, restarted when it crashes, stopped.

Source: "Custom Inference Code with Hosting Services",
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
(/ping must answer 200 within 2 s; SIGTERM, then SIGKILL 30 s later; containers that stop are started again).
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ..access import LOOPBACK
from ..process.group import KILL_AFTER_SECONDS, ProcessGroup
from .logs import LogShipper

VERIFY = Path(__file__).parents[2] / "images" / "native" / "verify.py"
PING_TIMEOUT_SECONDS = 2.0
PING_EVERY_SECONDS = 0.2
RESTART_AFTER_SECONDS = 0.5
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


class WorkerError(Exception):
    """The worker did not become healthy; the text holds its last lines."""


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def worker_environment(model: Path, container: Mapping[str, str], region: str, url: str) -> dict[str, str]:
    """What the worker sees: a few basics of the machine, this AWS, the artifact's code, the container's environment."""
    return {
        **{name: os.environ[name] for name in INHERITED if name in os.environ},
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **container,
        "PYTHONPATH": str(model / "code"),
    }


class Worker:
    """The process of one variant. `port` is where it listens while it lives."""

    def __init__(self, model: Path, environment: Mapping[str, str], logs: LogShipper) -> None:
        self.model, self.environment, self.logs = model, dict(environment), logs
        self.port = 0
        self.restarts = 0
        self._process: ProcessGroup | None = None
        self._stopping = threading.Event()
        self._healthy = threading.Event()

    @property
    def healthy(self) -> bool:
        """Whether it answered its ping and still runs."""
        return self._healthy.is_set()

    @property
    def pid(self) -> int | None:
        """The process group of the worker."""
        return self._process.pid if self._process else None

    def start(self, within_seconds: float) -> None:
        """Start and wait for /ping. Raises WorkerError when it ends or stays silent too long."""
        self._launch()
        self._await_ping(within_seconds)
        threading.Thread(target=self._watch, args=(within_seconds,), daemon=True).start()

    def _launch(self) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "inference_code.server", "--model-dir", str(self.model)]
        command += ["--host", LOOPBACK, "--port", str(self.port)]
        if self.environment.get("ENDPOINT_SERVER") == "native":  # as the native image does
            command = [sys.executable, "-I", str(VERIFY), "--model-dir", str(self.model), "--", *command]
        self._process = ProcessGroup(command, self.model / "code", self.environment)
        self.logs.follow(self._process.output)

    def _await_ping(self, within_seconds: float) -> None:
        deadline = time.monotonic() + within_seconds
        assert self._process is not None  # noqa: S101 - only called after _launch
        while True:
            if self._stopping.is_set():
                raise WorkerError("stopped while it started")
            code = self._process.wait(0)
            if code is not None:
                self.logs.finished(2.0)
                raise WorkerError(f"it ended with exit code {code}. Its last lines: {self._last_lines()}")
            if self._ping():
                self._healthy.set()
                return
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"no healthy answer to /ping within {within_seconds:g} s. Its last lines: {self._last_lines()}"
                )
            time.sleep(PING_EVERY_SECONDS)

    def _ping(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=PING_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _last_lines(self) -> str:
        return " | ".join(self.logs.last) or "(it printed nothing)"

    def _watch(self, within_seconds: float) -> None:
        """Start the process again whenever it ends by itself."""
        while not self._stopping.is_set():
            assert self._process is not None  # noqa: S101 - started before it is watched
            code = self._process.wait()
            self._healthy.clear()
            if self._stopping.is_set():
                return
            self._process.end(0)
            self.logs.say(f"the worker ended with exit code {code}; starting it again")
            self.restarts += 1
            if self._stopping.wait(RESTART_AFTER_SECONDS * min(self.restarts, 20)):
                return
            self._launch()
            try:
                self._await_ping(within_seconds)
            except WorkerError as error:
                self.logs.say(f"the worker did not come back: {error}")
                self._process.signal(signal.SIGKILL)

    def stop(self) -> None:
        """End the process and everything it started; returns when it is gone."""
        self._stopping.set()
        self._healthy.clear()
        if self._process is not None:
            self._process.end(KILL_AFTER_SECONDS)
