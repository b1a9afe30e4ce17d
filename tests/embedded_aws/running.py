"""A running embedded AWS as a subprocess, and boto3 clients for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
MODULE = [sys.executable, "-m", "embedded_aws"]


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """The first true answer of `condition`; fails the test when it never comes."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.1)


@dataclass
class Aws:
    """A server that runs."""

    directory: Path
    process: subprocess.Popen[Any]
    url: str
    port: int
    access_key: str
    secret_key: str
    token: str

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """A boto3 client of it, without retries."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )

    def environment(self) -> dict[str, str]:
        """What `environment` prints, as a dict."""
        command = [*MODULE, "environment", "--directory", str(self.directory)]
        printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        pairs = [line.removeprefix("export ").split("=", 1) for line in printed.splitlines() if "export" in line]
        return {name: value.strip("'") for name, value in pairs}

    def control(self, path: str, given: dict[str, Any] | None = None, method: str = "POST") -> dict[str, Any]:
        """One of the server's own calls."""
        url = f"http://127.0.0.1:{self.port}/_embedded_aws/{path}"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        body = None if given is None else json.dumps(given).encode()
        request = urllib.request.Request(url, body, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return dict(json.load(answer))

    def workers(self) -> list[psutil.Process]:
        """Every process below the server that has not ended."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it and wait."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(60)


def started(directory: Path, process: subprocess.Popen[bytes]) -> Aws:
    """The server of a process, once it serves a directory."""
    state, log = directory / "server.json", directory / "log.txt"
    wait_for(lambda: state.exists() or process.poll() is not None, "the server's state file")
    assert process.poll() is None, log.read_text() if log.exists() else "it has ended"
    found = json.loads(state.read_text())
    return Aws(directory, process, *(found[key] for key in ("url", "port", "access_key", "secret_key", "token")))


@contextlib.contextmanager
def running(directory: Path, *options: str) -> Iterator[Aws]:
    """Start a server with more options of `serve`; it is gone afterwards whatever happened, also to this process."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "log.txt").open("wb") as log:
        command = [*MODULE, "serve", "--directory", str(directory), "--until-stdin-ends", *options]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ})
    try:
        yield started(directory, process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
