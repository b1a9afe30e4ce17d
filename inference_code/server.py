"""The native server: `python -m inference_code.server --model-dir DIR [--host HOST] [--port PORT] [--supervise]`.

The port is open only once the model is loaded and has answered its warm-up; the routes are in service.py. SIGTERM lets
the requests in work finish and exits with 0; those not done within ENDPOINT_DRAIN_S are answered 503. A model that
cannot be loaded prints one line on stderr and exits with 1. Standard output begins with `listening on URL`; then come
the lines of logs.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence

from inference_code.supervisor import follow, supervise


def _serve(model_dir: str, listener: socket.socket) -> int:
    # Not at the top: the supervisor needs neither torch nor the memory that it takes.
    from inference_code.serving import serve  # noqa: PLC0415

    return serve(model_dir, listener)


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
    parser.add_argument("--supervise", action="store_true", help="start the server again when it is killed")
    parser.add_argument("--inherit", help=argparse.SUPPRESS)  # file descriptors, from the supervisor
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port is {options.port}; a port is 0 to 65535")
    if options.inherit:
        bound, supervisor = map(int, options.inherit.split(","))
        follow(supervisor, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return _serve(options.model_dir, socket.socket(fileno=bound))
    try:
        listener = _bind(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        return _fail(f"cannot listen on {where}: {error.strerror}; choose another port with --port")
    if options.supervise:
        command = [sys.executable, "-m", "inference_code.server", "--model-dir", options.model_dir]
        return supervise(command, listener)
    return _serve(options.model_dir, listener)


if __name__ == "__main__":
    sys.exit(main())
