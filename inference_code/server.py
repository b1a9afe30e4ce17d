"""The native server: `python -m inference_code.server --model-dir DIR [--host HOST] [--port PORT]`.

GET /ping answers 200 once the model is loaded and has answered its warm-up; the port is not open before. POST
/invocations is SageMaker's: input_fn, predict_fn, output_fn, each on a thread of its own pool, so that neither decoding
nor the device holds up the event loop. SIGTERM lets the requests in work finish and exits with 0; a model that cannot
be loaded prints one line on stderr and exits with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from inference_code import handler
from inference_code.answers import Reply
from inference_code.errors import (
    EndpointError,
    Internal,
    LoadError,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    TooLarge,
    Unavailable,
)
from inference_code.settings import Settings

_log = logging.getLogger(__name__)

# SageMaker kills a container 30 s after SIGTERM.
_DRAIN_SECONDS = 25
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Service:
    """The routes, and the pools that the three steps of a request run in."""

    def __init__(self, served: handler.Served, settings: Settings) -> None:
        self._served = served
        self._settings = settings
        # Decoding and encoding: a thread a core (they leave the interpreter's lock); the device: one a loaded copy.
        self._cpu = ThreadPoolExecutor(os.cpu_count() or 1, "cpu")
        self._device = ThreadPoolExecutor(getattr(served.model, "at_once", 1), "device")
        self._inside = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/ping", self.ping, methods=["GET"]),
            Route("/invocations", self.invocations, methods=["POST"]),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _unexpected})
        app.router.redirect_slashes = False
        return app

    async def ping(self, _: Request) -> Response:
        """200: the model was loaded and answered before the port was opened."""
        return Response(status_code=200)

    async def invocations(self, request: Request) -> Response:
        """One request through the handler; an error is answered as JSON {error, detail}."""
        if self._inside >= self._settings.max_queue:
            return _response(handler.failed(Unavailable("too many requests are waiting; try again", retry_after=1)))
        self._inside += 1
        try:
            body = await asyncio.wait_for(self._body(request), self._settings.body_timeout_s)
            return _response(await self._answer(body, request))
        except asyncio.TimeoutError:
            seconds = self._settings.body_timeout_s
            return _close(_response(handler.failed(RequestTimeout(f"the body did not arrive within {seconds:g} s"))))
        except EndpointError as error:  # of _body: the rest of the request is not read
            return _close(_response(handler.failed(error)))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        finally:
            self._inside -= 1

    async def _body(self, request: Request) -> bytes:
        """The request's body, given up as soon as it is larger than the limit. Raises TooLarge."""
        limit = self._settings.limits.request_bytes
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise TooLarge(f"the body has {declared[:20]} bytes; at most {limit} are read")
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"the body has more than {limit} bytes, which is what is read at most")
            chunks.append(chunk)
        return b"".join(chunks)

    async def _answer(self, body: bytes, request: Request) -> Reply:
        loop = asyncio.get_running_loop()
        names = {name.lower() for name in request.headers}
        context = handler.Headers({name: ", ".join(request.headers.getlist(name)) for name in names})
        content_type = request.headers.get("content-type", "")
        work = await loop.run_in_executor(self._cpu, handler.input_fn, body, content_type, context)
        done = await loop.run_in_executor(self._device, handler.predict_fn, work, self._served, context)
        return await loop.run_in_executor(self._cpu, handler.reply, done)

    def close(self) -> None:
        """End the threads."""
        self._cpu.shutdown()
        self._device.shutdown()


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, {**reply.headers, "Content-Type": reply.content_type})


def _close(response: Response) -> Response:
    """The connection cannot be used again: part of the request's body was never read."""
    response.headers["Connection"] = "close"
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, as JSON."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        allowed = dict(getattr(error, "headers", None) or {})
        reply = handler.failed(MethodNotAllowed(f"{request.method} {request.url.path[:100]} is not answered"))
        response = _response(reply)
        response.headers.update(allowed)
        return response
    return _response(handler.failed(NotFound(f"there is no {request.url.path[:100]}; POST /invocations, GET /ping")))


async def _unexpected(_: Request, error: Exception) -> Response:
    """Our own mistake: the log gets the traceback, the caller does not."""
    _log.error("a request failed", exc_info=error)
    return _response(handler.failed(Internal(f"{type(error).__name__}; the worker's log has the details")))


class _Server(uvicorn.Server):
    """uvicorn that says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or []:
            host, port = one.getsockname()[:2]
            print(f"listening on http://{host}:{port}", flush=True)  # noqa: T201


def serve(model_dir: str, host: str, port: int) -> int:
    """Load the model, then serve it until SIGTERM or SIGINT. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
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
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    try:
        _Server(configuration).run([listener])
    finally:
        service.close()
    return 0


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
