"""A process of the native server: load the model, serve it, drain and end. Started by __main__.py.

A lone process listens itself; one among several gets its connections from the parent (supervisor.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn

from inference_code.errors import LoadError
from inference_code.execution import gil_probe
from inference_code.execution.model import Model
from inference_code.handler import ModelHandler, load
from inference_code.observability.log_writer import announce
from inference_code.observability.request_id import WithRequestId
from inference_code.server import browser_guard
from inference_code.server.app import Service
from inference_code.server.http_protocol import http
from inference_code.server.traffic import Traffic
from inference_code.settings import Settings
from inference_code.workers import shared_output
from inference_code.workers.channel import WorkerContext
from inference_code.workers.connection_receiver import Connections

# After the drain: for the 503 answers to leave, and for threads to notice that they are not needed any more. With the
# last lines of the log (a second at most) all of it stays below the 30 s after which SageMaker kills.
LAST_ANSWERS_SECONDS = 2
THREADS_SECONDS = 1
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_ACCEPTING_TURNS = 3
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BLOCK = 4 * 1024 * 1024
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Server(uvicorn.Server):
    """uvicorn that prints its address once it listens, and starts the service's drain."""

    def __init__(
        self,
        configuration: uvicorn.Config,
        service: Service,
        traffic: Traffic,
        ending: threading.Event,
        worker: WorkerContext | None,
    ) -> None:
        super().__init__(configuration)
        self._traffic = traffic
        self._service = service
        self._ending = ending
        self._worker = worker
        self._connections: Connections | None = None
        self._state_server: asyncio.AbstractServer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._sweeps = asyncio.ensure_future(self._traffic.run())
        for one in sockets or []:
            host, port = one.getsockname()[:2]
            announce(f"listening on http://{host}:{port}")
        if self._worker is not None:
            self._state_server = await shared_output.serve_state(self._worker, self._service.state)
            self._connections = Connections(self._worker, self._protocol)
        if self._ending.is_set():  # the signal came before uvicorn listened to it
            self.should_exit = True

    def _protocol(self) -> Any:
        """What uvicorn makes for a connection that it accepts itself."""
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drain()
        for _ in range(_ACCEPTING_TURNS):  # of the event loop, which accept what has connected before
            await asyncio.sleep(0)
        if self._connections is not None:
            await self._connections.leave()
        if self._state_server is not None:
            self._state_server.close()
        await super().shutdown(sockets)
        self._sweeps.cancel()


def serve(
    model_dir: str, address: tuple[str, int], listener: socket.socket | None, worker: WorkerContext | None = None
) -> int:
    """Load the model, then serve it on a bound socket, or as one of several workers, until SIGTERM or SIGINT.

    address: IP address and port of that socket, or of the parent's. Returns the exit code.
    """
    _log_to_stderr(worker)
    _return_large_blocks()
    for one in _SIGNALS:  # while the model loads there is nothing to finish
        signal.signal(one, lambda *_: sys.exit(0))
    try:
        settings = Settings.from_environment()
        loaded = load(Path(model_dir), settings)
    except LoadError as error:
        return _refuse(f"The model cannot be served: {error}", worker)
    gil = None
    if isinstance(loaded.model, Model):  # what a user's model_fn returns may do anything when it is called again
        gil = gil_probe.watch(loaded.model, worker.count if worker else 1)
    ending = threading.Event()
    for one in _SIGNALS:  # uvicorn raises the signal again when it has drained; by then it shall have no effect
        signal.signal(one, lambda *_: ending.set())
    # What is loaded stays: a collection that walks over torch's objects again holds up every request meanwhile.
    gc.collect()
    gc.freeze()
    guard = browser_guard.guard(*address, settings.allowed_hosts)
    service = Service(ModelHandler(loaded), settings, worker=worker, gil=gil, guard=guard)
    traffic = Traffic(settings)
    configuration = uvicorn.Config(
        service,
        log_config=None,  # our own
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the client's address is not used
        ws="none",
        lifespan="off",
        http=http(settings.limits.request_bytes, traffic),
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_s) + LAST_ANSWERS_SECONDS,
    )
    _Server(configuration, service, traffic, ending, worker).run([listener] if listener is not None else [])
    if not service.close(THREADS_SECONDS):
        # Python waits for its threads without end; their requests have been answered.
        logging.getLogger(__name__).error("a request's work did not end within the drain; the process ends without it")
        sys.stderr.flush()
        os._exit(1)
    return 0


def _refuse(line: str, worker: WorkerContext | None) -> int:
    if worker is not None:
        worker.refuse(line)
    else:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
    return 1


def _return_large_blocks() -> None:
    """Have glibc give large blocks back to the system: it keeps those of the sizes that it has seen freed.

    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, 16 * _LARGE_BLOCK)


def _log_to_stderr(worker: WorkerContext | None) -> None:
    stream = logging.StreamHandler(sys.stderr)
    process = f"process {worker.index} " if worker is not None and worker.count > 1 else ""
    stream.setFormatter(logging.Formatter(f"{process}%(levelname)s %(name)s %(request_id)s: %(message)s"))
    stream.addFilter(WithRequestId())
    logging.basicConfig(level=logging.INFO, handlers=[stream])
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
