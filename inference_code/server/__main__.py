"""The native server: `python -m inference_code.server --model-dir DIR [--host HOST] [--port PORT] [--processes N]`.

The port is open only once the model is loaded and has answered its warm-up; the routes are in app.py. SIGTERM lets
the requests in work finish and exits with 0; those not done within ENDPOINT_DRAIN_S are answered 503. A model that
cannot be loaded prints one line on stderr and exits with 1. Standard output begins with `listening on URL`; then come
the lines of observability/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from inference_code.errors import LoadError
from inference_code.settings import Settings
from inference_code.workers.channel import WorkerContext
from inference_code.workers.resources import shares
from inference_code.workers.supervisor import supervise

_UNSENT_IN_KERNEL = 128 * 1024  # bytes of an answer that its client does not read


def _serve(
    model_dir: str, address: tuple[str, int], listener: socket.socket | None, worker: WorkerContext | None = None
) -> int:
    # Not at the top: the parent of several processes needs neither torch nor the memory that it takes.
    from inference_code.server.process import serve  # noqa: PLC0415

    return serve(model_dir, address, listener, worker)


def _serve_as(worker: WorkerContext, model_dir: str, address: tuple[str, int]) -> int:
    """A process among several: it ends when its parent does, and clears away what the parent could not."""

    def end() -> None:
        shutil.rmtree(worker.folder, ignore_errors=True)  # the first of the processes does it
        os.kill(os.getpid(), signal.SIGTERM)

    worker.follow(end)
    return _serve(model_dir, address, None, worker)


def _open_closed_streams() -> None:
    """Where standard input, output or error was closed, nothing that is opened later may be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket: the port is ours while the model loads, but connections are refused until uvicorn listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # accepted connections inherit it; megabytes would wait in the kernel
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_IN_KERNEL)
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
    processes = "processes that share port and cores; default: ENDPOINT_PROCESSES, or 1"
    parser.add_argument("--processes", type=int, metavar="N", help=processes)
    parser.add_argument(
        "--supervise", action="store_true", help="start the server again when it is killed, as several processes are"
    )
    parser.add_argument("--worker-context", help=argparse.SUPPRESS)  # a place, from the parent of several processes
    options = parser.parse_args(arguments)
    _open_closed_streams()
    if not 0 <= options.port <= 65535:
        parser.error(f"--port is {options.port}; a port is 0 to 65535")
    if options.processes is not None and options.processes < 1:
        parser.error(f"--processes is {options.processes}; it must be 1 or more")
    if options.worker_context:
        return _serve_as(WorkerContext.read(options.worker_context), options.model_dir, (options.host, options.port))
    try:
        settings = Settings.from_environment()
        plan = shares(Path(options.model_dir), settings, options.processes or settings.processes)
    except LoadError as error:
        return _fail(f"The model cannot be served: {error}")
    try:
        listener = _bind(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        return _fail(f"cannot listen on {where}: {error.strerror}; choose another port with --port")
    host, port = listener.getsockname()[:2]
    if options.supervise or len(plan) > 1:
        command = [sys.executable, "-m", "inference_code.server", "--model-dir", options.model_dir]
        command += ["--host", host, "--port", str(port)]
        return supervise(command, listener, plan, settings.drain_s)
    return _serve(options.model_dir, (host, port), listener)


if __name__ == "__main__":
    sys.exit(main())
