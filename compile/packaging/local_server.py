"""A worker of an artifact on this machine: the extracted tarball's own code behind its native server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compile.errors import CompileError

# SageMaker gives a container this long to answer /ping by default (ContainerStartupHealthCheckTimeoutInSeconds).
START_SECONDS = 480
_STOP_SECONDS = 20
_LAST_LINES = 15


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes


class Worker:
    """A running server. `process` may be waited for; `invoke` posts one request to /invocations."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def invoke(self, body: bytes, content_type: str, accept: str) -> Answer:
        """Raises CompileError when the worker answers anything but 200."""
        headers = {"Content-Type": content_type, "Accept": accept}
        request = urllib.request.Request(f"{self.url}/invocations", body, headers)  # noqa: S310  (loopback, our own)
        try:
            with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:  # noqa: S310
                return Answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except urllib.error.HTTPError as error:
            raise CompileError(f"The artifact answered {error.code}: {error.read().decode(errors='replace')}") from None
        except OSError as error:
            raise CompileError(f"The artifact's worker did not answer: {error}\n{self._last()}") from None

    def wait_until_ready(self) -> None:
        """Returns when /ping answers 200. Raises CompileError with the worker's last lines when it ends before."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise CompileError(
                    f"The artifact's worker stopped with exit code {self.process.returncode}:\n{self._last()}"
                )
            try:
                with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:  # noqa: S310
                    if answer.status == 200:
                        return
            except OSError:  # not listening yet, or loading: 5xx is an OSError too
                time.sleep(0.1)
        raise CompileError(f"The artifact's worker was not ready after {START_SECONDS} s:\n{self._last()}")

    def _last(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "\n".join("  " + line for line in lines[-_LAST_LINES:])


@contextmanager
def running(model_dir: Path, environment: Mapping[str, str], log: Path, port: int | None = None) -> Iterator[Worker]:
    """A worker of the artifact unpacked in `model_dir`, ready to answer; ended on the way out.

    Only the artifact's code is importable, beside installed packages; what it prints goes to `log`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        chosen = port or probe.getsockname()[1]
    variables = {**os.environ, **environment, "PYTHONPATH": str(model_dir / "code"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "inference_code.server", "--model-dir", str(model_dir), "--port", str(chosen)]
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603  (our own Python, no shell)
            command, cwd=model_dir / "code", env=variables, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        worker = Worker(process, chosen, log)
        worker.wait_until_ready()
        yield worker
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
