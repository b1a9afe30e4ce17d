"""The native server's process: load the model, serve it on a bound socket, drain and end. Started by server.py."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from inference_code import handler, logs
from inference_code.errors import LoadError
from inference_code.protocol import http
from inference_code.service import Service
from inference_code.settings import Settings

# After the drain: for the 503 answers to leave, and for threads to notice that they are not needed any more. With the
# last lines of the log (a second at most) all of it stays below the 30 s after which SageMaker kills.
_LAST_ANSWERS_SECONDS = 2
_THREADS_SECONDS = 1
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Server(uvicorn.Server):
    """uvicorn that says where it listens once it does, and tells the service when to drain."""

    def __init__(self, configuration: uvicorn.Config, service: Service) -> None:
        super().__init__(configuration)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or []:
            host, port = one.getsockname()[:2]
            print(f"listening on http://{host}:{port}", flush=True)  # noqa: T201

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.drain()
        await super().shutdown(sockets)


def serve(model_dir: str, listener: socket.socket) -> int:
    """Load the model, then serve it on a bound socket until SIGTERM or SIGINT. Returns the exit code."""
    _log_to_stderr()
    for one in _SIGNALS:  # while the model loads there is nothing to finish
        signal.signal(one, lambda *_: sys.exit(0))
    try:
        settings = Settings.from_environment()
        served = handler.load(Path(model_dir), settings)
    except LoadError as error:
        print(f"The model cannot be served: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return 1
    for one in _SIGNALS:  # uvicorn raises the signal again when it has drained; by then it shall have no effect
        signal.signal(one, lambda *_: None)
    # What is loaded stays: a collection that walks over torch's objects again holds up every request meanwhile.
    gc.collect()
    gc.freeze()
    service = Service(served, settings)
    configuration = uvicorn.Config(
        service,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody reads the client's address
        http=http(settings.limits.request_bytes),
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_s) + _LAST_ANSWERS_SECONDS,
    )
    _Server(configuration, service).run([listener])
    if not service.close(_THREADS_SECONDS):
        # Python waits for its threads without end; whoever they work for has been answered.
        logging.getLogger(__name__).error("a request's work did not end within the drain; the process ends without it")
        sys.stderr.flush()
        os._exit(1)
    return 0


def _log_to_stderr() -> None:
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(logging.Formatter("%(levelname)s %(name)s %(request_id)s: %(message)s"))
    stream.addFilter(logs.WithRequestId())
    logging.basicConfig(level=logging.INFO, handlers=[stream])
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
