"""The native server's routes: POST /invocations and GET /ping, which are SageMaker's, and GET /metrics.

Plain ASGI: what a framework adds to each request costs more than what this file does in it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

from inference_code.codecs.responses import Reply
from inference_code.errors import (
    SHUTTING_DOWN,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
)
from inference_code.execution.gil_probe import GilProbe
from inference_code.handler import ModelHandler
from inference_code.observability import metrics
from inference_code.observability.log_writer import to_stdout
from inference_code.observability.metrics import State
from inference_code.observability.recorder import RequestRecorder
from inference_code.server.bodies import BodyReader, ClientGoneError
from inference_code.server.browser_guard import BrowserGuard
from inference_code.server.pipeline import Pipeline
from inference_code.server.server_request import ServerRequest
from inference_code.server.timeouts import ClientWatch, Receive
from inference_code.server.traffic import BODY, CONNECTION
from inference_code.settings import Settings
from inference_code.workers import shared_output
from inference_code.workers.channel import WorkerContext

# https://asgi.readthedocs.io/en/latest/specs/www.html
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_METHODS = {"/ping": ("GET", "HEAD"), "/metrics": ("GET", "HEAD"), "/invocations": ("POST",)}
_PIECE = 256 * 1024  # bytes of an answer that are written at once
_log = logging.getLogger(__name__)

# A caller's own request id is kept: X-Request-Id, or the InferenceId that boto3's invoke_endpoint takes.
_ID_HEADERS = ("x-request-id", "x-amzn-sagemaker-inference-id")
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Service:
    """The routes, admission, deadlines and the drain."""

    def __init__(
        self,
        handler: ModelHandler,
        settings: Settings,
        write: Callable[[bytes], None] = to_stdout,
        worker: WorkerContext | None = None,
        gil: GilProbe | None = None,
        guard: BrowserGuard | None = None,
    ) -> None:
        """worker: the place among several processes. gil: what gil_probe.py measured. guard: on a loopback address."""
        self._handler, self._settings, self._guard = handler, settings, guard
        self._worker, self._holds_gil = worker, gil is not None and gil.held
        name = handler.loaded.manifest.name
        if worker is not None and worker.count > 1:
            first = worker.index * handler.loaded.max_concurrency
            self._recorder = RequestRecorder(name, shared_output.exclusive_stdout(worker), first, worker.index)
        else:
            self._recorder = RequestRecorder(name, write)
        self._pipeline = Pipeline(handler, settings, self._recorder.batch)
        self._bodies = BodyReader(settings.limits.request_bytes, settings.body_timeout_s)
        self._in_pipeline: set[ServerRequest] = set()
        self._in_progress = self._reading = self._admitted = 0  # requests; their bodies; those whose bodies are whole
        self._drain_ends: float | None = None
        self._drained = False  # the drain has ended: what was still in progress got 503

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        request = _request(scope, self._settings.deadline_s)
        detail = self._guard.refusal(scope["method"], scope["http_version"], request.headers) if self._guard else None
        if detail is not None:
            scope.pop("extensions", None)  # no one reads the body
            await self._send(request, self._handler.error_reply(Forbidden(detail)), scope, send, receive)
            return
        if request.path == "/invocations" and scope["method"] == "POST":
            await self._invocations(request, scope, receive, send)
            return
        scope.pop("extensions", None)
        refused = self._refusal(request.path, str(scope["method"]))
        if refused is not None:
            await self._send(request, refused, scope, send)
            return
        try:
            reply = self._ping() if request.path == "/ping" else await self._metrics()
        except Exception as error:
            reply = self._handler.error_reply(error)
        await _write(reply, self._headers(reply, request, scope), send)  # health checks have no log record

    def _refusal(self, path: str, method: str) -> Reply | None:
        """404 or 405 for a route that is not there, None for one that is."""
        allowed = _METHODS.get(path)
        if allowed is None:
            return self._handler.error_reply(NotFound(f"there is no {path[:100]}; POST /invocations, GET /ping"))
        if method not in allowed:
            refused = self._handler.error_reply(MethodNotAllowed(f"{method} {path} is not answered"))
            return replace(refused, headers={**refused.headers, "Allow": ", ".join(allowed)})
        return None

    def _ping(self) -> Reply:
        """200: the model was loaded and warmed up before the port was opened. 503: it ends, or can decode nothing."""
        if self._drain_ends is not None:
            return Reply(503, b"", "text/plain")
        if self._pipeline.is_stuck():
            return self._handler.error_reply(Unavailable("every decoding thread is past its request's deadline"))
        return Reply(200, b"", "text/plain")

    async def _metrics(self) -> Reply:
        """Prometheus' text: the sum over all processes, whichever is asked."""
        others = await shared_output.collect_states(self._worker) if self._worker is not None else []
        text = self._recorder.text(self._gauges(others.count(None)), [one for one in others if one is not None])
        return Reply(200, text.encode(), metrics.CONTENT_TYPE)

    def state(self) -> State:
        """The metrics of this process alone."""
        return self._recorder.state(self._gauges())

    def _gauges(self, silent: int = 0) -> dict[str, tuple[str, float]]:
        return {
            "endpoint_requests_inside": ("Requests in progress.", float(self._in_progress)),
            "endpoint_items_waiting": ("Items in the inference queue.", float(self._pipeline.waiting())),
            "endpoint_processes": ("Worker processes in this sum.", 1.0),
            "endpoint_processes_silent": ("Worker processes that did not report in time.", float(silent)),
            "endpoint_processes_holding_gil": (
                "Worker processes whose model holds the GIL during inference.", float(self._holds_gil)
            ),
        }  # fmt: skip

    # One request ----------------------------------------------------------------------------------------------------

    async def _invocations(self, request: ServerRequest, scope: Scope, receive: Receive, send: Send) -> None:
        """One request through the handler; an error is answered as JSON {error, detail}."""
        self._in_progress += 1
        unread = None
        try:
            try:
                self._check_room()
                unread = receive
                request.body = await self._read(request, scope, receive)
                unread = None
                self._check_room()
                reply = await self._infer(request, receive)
            except ClientGoneError:
                raise
            except Exception as error:
                reply = self._handler.error_reply(error)
                scope.pop("extensions", None)  # no one will read the body
            await self._send(request, reply, scope, send, unread)
        except ClientGoneError:
            self._recorder.gone()
            self._record(request, None)
        finally:
            self._in_progress -= 1

    def _check_room(self) -> None:
        """Raise Unavailable where no place is left: one is taken by a request whose body is whole, until its reply."""
        limit = self._settings.max_queue
        if self._admitted >= limit or self._drained:
            busy = f"server is at its limit of {limit} concurrent requests; retry"
            raise Unavailable(SHUTTING_DOWN if self._drained else busy, retry_after=1)

    async def _read(self, request: ServerRequest, scope: Scope, receive: Receive) -> bytes | memoryview:
        most, connection = self._settings.max_bodies, _connection(scope)
        if self._reading >= most and not (connection and connection.traffic.close_stalled(BODY, connection)):
            raise Unavailable(f"{most} bodies are being read (ENDPOINT_MAX_BODIES); retry", retry_after=1)
        self._reading += 1
        try:
            return await self._bodies.read(request.headers, scope, receive)
        finally:
            self._reading -= 1

    async def _infer(self, request: ServerRequest, receive: Receive) -> Reply:
        """Send the request through the pipeline. Raises ClientGoneError, and then its work is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        request.respond = functools.partial(_deliver, loop, future)
        self._in_pipeline.add(request)
        self._admitted += 1
        watch = ClientWatch(
            receive, lambda: self._leave(request, future), request.deadline, lambda: self._expire(request)
        )
        try:
            self._pipeline.start(request)
            return await future
        finally:
            watch.end()
            self._admitted -= 1
            self._in_pipeline.discard(request)
            request.bucket = self._pipeline.bucket(request)

    def _expire(self, request: ServerRequest) -> None:
        """The request's deadline. On the event loop."""
        seconds = self._settings.deadline_s
        error = Unavailable(f"request deadline of {seconds:g} s exceeded; retry", retry_after=1)
        self._pipeline.cancel(request, error)

    def _leave(self, request: ServerRequest, future: asyncio.Future[Reply]) -> None:
        """The client has gone. On the event loop."""
        if not future.done():
            future.set_exception(ClientGoneError())
        self._pipeline.cancel(request, Unavailable("the client closed the connection"))

    async def _send(
        self, request: ServerRequest, reply: Reply, scope: Scope, send: Send, unread: Receive | None = None
    ) -> None:
        """The response, and then its record. `unread`: where the rest of the body comes from.

        A socket that is closed with unread bytes resets the connection, and the client may lose the response. So the
        body is read on for a while, and thrown away, before the response ends.
        """
        seconds = time.monotonic() - request.arrived
        connection = _connection(scope)
        large = connection is not None and len(reply.body) > _PIECE
        try:
            if large:
                connection.traffic.answer_begins(connection, len(reply.body))
        except Unavailable as error:
            reply = self._handler.error_reply(error)
        headers = self._headers(reply, request, scope)
        if unread is not None:
            headers.append((b"connection", b"close"))
        try:
            await _write(reply, headers, send, more=unread is not None)
            if unread is not None:
                await self._bodies.discard(unread, slow=reply.status != TooLarge.status)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if large:
                connection.traffic.answer_ends(connection)
        self._record(request, reply, seconds)

    def _headers(self, reply: Reply, request: ServerRequest, scope: Scope) -> list[tuple[bytes, bytes]]:
        pairs = {**reply.headers, "Content-Type": reply.content_type, "X-Request-Id": request.request_id}
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs.items()]
        if self._drain_ends is not None:
            connection = _connection(scope)
            if self._drained or connection is None or connection.is_last():
                encoded.append((b"connection", b"close"))
        return [*encoded, (b"content-length", str(len(reply.body)).encode())]

    def _record(self, request: ServerRequest, reply: Reply | None, seconds: float | None = None) -> None:
        """Hand the request over as a record; a background thread formats it as a log line and metrics."""
        request.record(reply, time.monotonic() - request.arrived if seconds is None else seconds)
        self._recorder.request(request)

    # The end --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """SIGTERM: finish what is in progress; after drain_s seconds the rest is answered 503. On the event loop."""
        self._drain_ends = time.monotonic() + self._settings.drain_s
        asyncio.get_running_loop().call_later(self._settings.drain_s, self._end_drain)

    def _end_drain(self) -> None:
        self._drained = True
        self._bodies.end()
        for request in list(self._in_pipeline):
            self._pipeline.cancel(request, Unavailable(SHUTTING_DOWN, retry_after=1))

    def close(self, seconds: float) -> bool:
        """End the threads, within `seconds` or what is left of the drain, and write the last lines.

        Returns whether no thread is left working.
        """
        left = 0.0 if self._drain_ends is None else self._drain_ends - time.monotonic()
        ended = self._pipeline.close(max(seconds, left))
        self._recorder.close()
        return ended


def _request(scope: Scope, deadline_s: float) -> ServerRequest:
    """The request of a scope. Headers: by name in lower case; of several with one name, joined by commas."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    given = next((headers[name] for name in _ID_HEADERS if name in headers), "")
    return ServerRequest(
        headers,
        path=str(scope["path"]),
        request_id=given if _ID.fullmatch(given) else f"{random.getrandbits(128):032x}",
        deadline=time.monotonic() + deadline_s,
    )


def _deliver(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Reply], reply: Reply) -> None:
    """Give the reply to the event loop, from whichever thread."""

    def deliver() -> None:
        if not future.done():
            future.set_result(reply)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the event loop is closed: no one waits any more
        _log.warning("a response came after the end of the server")


def _connection(scope: Scope) -> Any:
    """The protocol of the connection that a request came by; None where a test calls the service itself."""
    return scope.get("state", {}).get(CONNECTION)


async def _write(reply: Reply, headers: list[tuple[bytes, bytes]], send: Send, *, more: bool = False) -> None:
    """In pieces, each of which waits until the client has read most of those before."""
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    body: bytes | memoryview = reply.body
    if len(body) > _PIECE:
        body = memoryview(body)
        while len(body) > _PIECE:
            await send({"type": "http.response.body", "body": body[:_PIECE], "more_body": True})
            body = body[_PIECE:]
    await send({"type": "http.response.body", "body": body, "more_body": more})
