"""The native server: `python -m inference_code.server --model-dir DIR [--host HOST] [--port PORT]`.

The port is open only once the model is loaded and has answered its warm-up; the routes are in service.py. SIGTERM lets
the requests in work finish and exits with 0; those not done within ENDPOINT_DRAIN_S are answered 503. A model that
cannot be loaded prints one line on stderr and exits with 1. Standard output begins with `listening on URL`; then come
the lines of logs.py.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from inference_code import handler, logs
from inference_code.errors import LoadError
from inference_code.service import Service
from inference_code.settings import Settings

# After the drain: for the 503 answers to leave, and for threads to notice that they are not needed any more.
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


def serve(model_dir: str, host: str, port: int) -> int:
    """Load the model, then serve it until SIGTERM or SIGINT. Returns the exit code."""
    _log_to_stderr()
    for one in _SIGNALS:  # while the model loads there is nothing to finish
        signal.signal(one, lambda *_: sys.exit(0))
    try:
        listener = _bind(host, port)
    except OSError as error:
        return _fail(f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port")
    try:
        settings = Settings.from_environment()
        served = handler.load(Path(model_dir), settings)
    except LoadError as error:
        return _fail(f"The model cannot be served: {error}")
    for one in _SIGNALS:  # uvicorn raises the signal again when it has drained; by then it shall have no effect
        signal.signal(one, lambda *_: None)
    service = Service(served, settings)
    configuration = uvicorn.Config(
        service.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        http="h11",  # bounds the size of the headers; httptools does not
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


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket: the port is ours while the model loads, but connections are refused until uvicorn listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _fail(line: str) -> int:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 ended by a signal, 1 cannot serve; wrong use exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m inference_code.server",
        description="Serve the unpacked model.tar.gz in DIR: GET /ping, POST /invocations.",
        epilog="Limits come from the environment: see inference_code/settings.py.",
    )
    parser.add_argument("--model-dir", required=True, metavar="DIR", help="the folder of manifest.json")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s; 0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s; 0 takes a free one and prints it")
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port is {options.port}; a port is 0 to 65535")
    return serve(options.model_dir, options.host, options.port)


if __name__ == "__main__":
    sys.exit(main())
