"""The server: moto's WSGI application with our answers in it, on a loopback address only."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from moto.cloudwatch.models import cloudwatch_backends
from werkzeug.serving import make_server

from . import patches
from .access import LOOPBACK, STATE_FILE, Secrets, private_directory, write_private
from .application import Application
from .clients import Clients
from .connection import QuietHandler
from .context import ServerContext
from .control.clock import Clock
from .monitoring.alarms import evaluate_all
from .process.group import write_program

log = logging.getLogger(__name__)
EVALUATE_ALARMS_EVERY_SECONDS = 10.0
SIGNAL_SECONDS = 0.5  # a signal is seen at least so soon
PROCESSING_QUOTA = 4  # of jobs at once on one instance type


class Server:
    """One embedded AWS with its state under `directory`. Use `start` and `stop`, or `run` in the foreground.

    Several may serve in one process: each has its own account, and its state in a ServerContext.
    Raises AccessError when the folder cannot be kept from other users, OSError when it cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        clock: Clock | None = None,
        processing_quota: int = PROCESSING_QUOTA,
        job_python: Path = Path(sys.executable),
    ) -> None:
        """job_python: what `python3` and `python` are inside jobs and instances."""
        self.directory = directory.resolve()
        private_directory(self.directory)
        patches.install()
        self.secrets = Secrets.random()
        self._ended = threading.Event()
        # the application is set below: it needs the port
        self._http = make_server(LOOPBACK, port, None, threaded=True, request_handler=QuietHandler)  # type: ignore[arg-type]
        self.port = self._http.server_port
        self.url = f"http://localhost:{self.port}"
        clients = Clients(f"http://{LOOPBACK}:{self.port}", self.secrets.access_key, self.secrets.secret_key)
        self.context = ServerContext.open(self.directory, clients, clock or Clock(), processing_quota)
        self.context.host.scratch.mkdir(exist_ok=True)
        self.context.host.programs.mkdir(exist_ok=True)
        for name in ("python", "python3"):
            # No link: through one, a virtual environment's interpreter would not know that it is one.
            write_program(self.context.host.programs / name, f'exec {shlex.quote(str(job_python.absolute()))} "$@"')
        self._http.app = Application(self.context, self.secrets)

    def start(self) -> None:
        """Serve in the background and write the state file."""
        threading.Thread(target=self._http.serve_forever, name="http", daemon=True).start()
        threading.Thread(target=self._watch_alarms, name="alarms", daemon=True).start()
        state = {"url": self.url, "pid": os.getpid(), "port": self.port, **asdict(self.secrets)}
        write_private(self.directory / STATE_FILE, json.dumps(state) + "\n")

    def stop(self) -> None:
        """Stop every worker, then the server, and take the state file away."""
        self._ended.set()
        self.context.stop()
        self._http.shutdown()
        self._http.server_close()
        self.context.close()
        (self.directory / STATE_FILE).unlink(missing_ok=True)

    def run(self, *, until_stdin_ends: bool = False) -> None:
        """Serve until SIGTERM or SIGINT, or until standard input ends: when the process at its other end has ended."""
        asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
        if until_stdin_ends:
            threading.Thread(target=_await_end_of_stdin, args=(asked,), daemon=True).start()
        self.start()
        # The kernel may give a signal to any thread, and that does not end a wait of this one, which runs the handler.
        while not asked.wait(SIGNAL_SECONDS):
            pass
        self.stop()

    def _watch_alarms(self) -> None:
        host = self.context.host
        while not self._ended.wait(EVALUATE_ALARMS_EVERY_SECONDS):
            for backend in list(cloudwatch_backends[host.account].values()):
                try:
                    evaluate_all(backend, host.clients)
                except Exception:
                    log.exception("alarms of %s", backend.region_name)


def _await_end_of_stdin(then: threading.Event) -> None:
    # not sys.stdin: its lock, held by a thread, would not let the interpreter end
    while os.read(0, 4096):
        pass
    then.set()
