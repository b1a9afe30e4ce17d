"""The native server's routes: POST /invocations and GET /ping, which are SageMaker's, and GET /metrics.

Plain ASGI: what a framework adds to each request costs more than what this file does in it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

from inference_code import handler
from inference_code.codecs.responses import Reply
from inference_code.errors import (
    SHUTTING_DOWN,
    EndpointError,
    Forbidden,
    Internal,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    TooLarge,
    Unavailable,
)
from inference_code.execution.gil_probe import Lock
from inference_code.observability import metrics
from inference_code.observability.log_writer import to_stdout
from inference_code.observability.metrics import State
from inference_code.observability.recorder import Observer, Told
from inference_code.server.browser_guard import BrowserGuard
from inference_code.server.http_protocol import WHOLE_BODY
from inference_code.server.pipeline import Job, Pipeline
from inference_code.server.timeouts import CancelAfter, ClientWatch
from inference_code.settings import Settings
from inference_code.workers import shared_output
from inference_code.workers.channel import Member

# https://asgi.readthedocs.io/en/latest/specs/www.html
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_METHODS = {"/ping": ("GET", "HEAD"), "/metrics": ("GET", "HEAD"), "/invocations": ("POST",)}
_DRAIN_BODY_SECONDS = 10.0
_DRAIN_SHORT_SECONDS = 1.0  # the same, once the server ends, or when the body was too slow already
_log = logging.getLogger(__name__)

# A caller's own request id is kept: X-Request-Id, or the InferenceId that boto3's invoke_endpoint takes.
_ID_HEADERS = ("x-request-id", "x-amzn-sagemaker-inference-id")
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class _ClientGoneError(Exception):
    """The client closed the connection before its answer."""


class Service:
    """The routes, and what is known of the requests inside."""

    def __init__(
        self,
        served: handler.Served,
        settings: Settings,
        write: Callable[[bytes], None] = to_stdout,
        member: Member | None = None,
        lock: Lock | None = None,
        guard: BrowserGuard | None = None,
    ) -> None:
        """member: the place among several processes. lock: what interpreter.py saw. guard: on a loopback address."""
        self._settings, self._guard = settings, guard
        self._member, self._holds_lock = member, lock is not None and lock.held
        if member is not None and member.count > 1:
            first = member.index * int(getattr(served.model, "at_once", 1))
            self._observer = Observer(served.manifest.name, shared_output.in_turn(member), first, member.index)
        else:
            self._observer = Observer(served.manifest.name, write)
        self._pipeline = Pipeline(served, settings, self._observer.batch)
        self._jobs: set[Job] = set()
        self._waits: set[CancelAfter] = set()  # for what clients still have to send
        self._inside = 0
        self._drain_ends: float | None = None
        self._given_up = False  # what was inside at the end of the drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        call = _Call(scope)
        if self._guard is not None:
            detail = self._guard.refusal(scope["method"], scope["http_version"], call.headers)
            if detail is not None:
                scope.pop("extensions", None)  # nobody asks for what was sent
                await self._send(call, handler.failed(Forbidden(detail)), send, receive)
                return
        if call.path == "/invocations" and scope["method"] == "POST":
            await self._invocations(call, receive, send)
            return
        scope.pop("extensions", None)  # nobody asks for what was sent
        refused = _refusal(call, str(scope["method"]))
        if refused is not None:
            await self._send(call, refused, send)
            return
        try:
            reply = self._ping() if call.path == "/ping" else await self._metrics()
        except Exception as error:
            reply = _mistaken(error)
        await _write(reply, _headers(reply, call.id), send)  # whoever watches the server is not told of

    def _ping(self) -> Reply:
        """200: the model was loaded and answered before the port was opened. 503 once the server is ending."""
        return Reply(200 if self._drain_ends is None else 503, b"", "text/plain")

    async def _metrics(self) -> Reply:
        """Prometheus' text: the sum over all processes, whichever is asked."""
        others = await shared_output.ask(self._member) if self._member is not None else []
        text = self._observer.text(self._gauges(others.count(None)), [one for one in others if one is not None])
        return Reply(200, text.encode(), metrics.CONTENT_TYPE)

    def state(self) -> State:
        """The metrics of this process alone."""
        return self._observer.state(self._gauges())

    def _gauges(self, silent: int = 0) -> dict[str, tuple[str, float]]:
        return {
            "endpoint_requests_inside": ("Requests that are not answered yet.", float(self._inside)),
            "endpoint_items_waiting": ("Items that wait for the device.", float(self._pipeline.waiting())),
            "endpoint_processes": ("Processes whose metrics these are.", 1.0),
            "endpoint_processes_silent": ("Processes that did not tell theirs in time.", float(silent)),
            "endpoint_processes_holding_lock": (
                "Processes whose model was seen to hold the interpreter's lock.", float(self._holds_lock)
            ),
        }  # fmt: skip

    # One request ----------------------------------------------------------------------------------------------------

    async def _invocations(self, call: _Call, receive: Receive, send: Send) -> None:
        """One request through the handler; an error is answered as JSON {error, detail}."""
        if self._inside >= self._settings.max_queue or self._given_up:
            busy = f"{self._inside} requests are being worked on, which is as many as may; try again"
            refused = Unavailable(SHUTTING_DOWN if self._given_up else busy, retry_after=1)
            call.scope.pop("extensions", None)  # nobody will ask for what was sent
            await self._send(call, handler.failed(refused), send)
            return
        self._inside += 1
        unread = None
        try:
            try:
                call.body = await self._body(call, receive)
            except EndpointError as error:  # before the request was read to its end
                reply, unread = handler.failed(error), receive
            else:
                reply = await self._answer(call, receive)
        except _ClientGoneError:
            self._observer.gone()
            self._tell(call, Told(status=None, error="client_gone"))
            return
        except Exception as error:
            reply = _mistaken(error)
        finally:
            self._inside -= 1
        await self._send(call, reply, send, unread)

    async def _body(self, call: _Call, receive: Receive) -> bytes | memoryview:
        """The request's body, given up as soon as it is larger than the limit or late. Raises TooLarge, RequestTimeout.

        Raises Unavailable at the end of the drain, and _ClientGoneError.
        """
        limit = self._settings.limits.request_bytes
        declared = call.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise TooLarge(f"the body has {declared[:20]} bytes; at most {limit} are read")
        late = CancelAfter(self._settings.body_timeout_s, self._waits)
        try:
            return await _read(call, receive, limit)
        except asyncio.CancelledError:
            if not late.came():
                raise
            if self._given_up:
                raise Unavailable(SHUTTING_DOWN, retry_after=1) from None
            raise RequestTimeout(f"the body did not arrive within {self._settings.body_timeout_s:g} s") from None
        finally:
            late.end()

    async def _answer(self, call: _Call, receive: Receive) -> Reply:
        """Send the request through the pipeline. Raises _ClientGoneError, and then its work is given up."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        call.job = job = Job(
            call.body,
            call.headers.get("content-type", ""),
            handler.Headers(call.headers),
            lambda reply: _deliver(loop, future, reply),
            deadline=call.arrived + self._settings.deadline_s,
            request_id=call.id,
        )
        self._jobs.add(job)
        watch = ClientWatch(receive, lambda: self._leave(job, future), job.deadline, lambda: self._expire(job))
        try:
            self._pipeline.start(job)
            return await future
        finally:
            watch.end()
            self._jobs.discard(job)

    def _expire(self, job: Job) -> None:
        """The request's time is up. On the event loop."""
        seconds = self._settings.deadline_s
        self._pipeline.give_up(job, Unavailable(f"there is no answer after {seconds:g} s; try again", retry_after=1))

    def _leave(self, job: Job, future: asyncio.Future[Reply]) -> None:
        """The client has gone. On the event loop."""
        if not future.done():
            future.set_exception(_ClientGoneError())
        self._pipeline.give_up(job, Unavailable("the client has gone"))

    async def _send(self, call: _Call, reply: Reply, send: Send, unread: Receive | None = None) -> None:
        """The answer, and then what is told of it. `unread`: where the rest of the body comes from.

        A socket that is closed with unread bytes resets the connection, and the client may lose the answer that it was
        sent. So the body is read on for a while, and thrown away, before the response ends.
        """
        seconds = time.monotonic() - call.arrived
        headers = _headers(reply, call.id)
        if unread is not None:
            headers.append((b"connection", b"close"))
        await _write(reply, headers, send, more=unread is not None)
        if unread is not None:
            slow = self._given_up or reply.status == RequestTimeout.status
            await self._drain(unread, _DRAIN_SHORT_SECONDS if slow else _DRAIN_BODY_SECONDS)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._tell(call, Told.of(reply), seconds)

    async def _drain(self, receive: Receive, seconds: float) -> None:
        """Read on and throw away: as many bytes as a body may have at most, for a while."""
        late = CancelAfter(seconds, self._waits)
        left = self._settings.limits.request_bytes
        try:
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
        except asyncio.CancelledError:
            if not late.came():
                raise
        finally:
            late.end()

    def _tell(self, call: _Call, told: Told, seconds: float | None = None) -> None:
        """Hand over what is told of a request; it is put into words later, on another thread."""
        told.request_id, told.content_type, told.request_bytes = call.id, call.content_type, len(call.body)
        told.seconds = time.monotonic() - call.arrived if seconds is None else seconds
        if call.job is not None:
            _record_job(told, call.job, self._pipeline.bucket(call.job))
        if call.path != "/invocations":
            told.path = call.path[:100]
        self._observer.request(told)

    # The end --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """SIGTERM: finish what is inside; after drain_s seconds the rest is answered 503. On the event loop."""
        self._drain_ends = time.monotonic() + self._settings.drain_s
        asyncio.get_running_loop().call_later(self._settings.drain_s, self._give_up_all)

    def _give_up_all(self) -> None:
        self._given_up = True
        for wait in list(self._waits):
            wait.cancel()
        for job in list(self._jobs):
            self._pipeline.give_up(job, Unavailable(SHUTTING_DOWN, retry_after=1))

    def close(self, seconds: float) -> bool:
        """End the threads, within `seconds` or what is left of the drain, and write the last lines.

        Returns whether no thread is left working.
        """
        left = 0.0 if self._drain_ends is None else self._drain_ends - time.monotonic()
        ended = self._pipeline.close(max(seconds, left))
        self._observer.close()
        return ended


def _refusal(call: _Call, method: str) -> Reply | None:
    """404 or 405 for a route that is not there, None for one that is."""
    allowed = _METHODS.get(call.path)
    if allowed is None:
        return handler.failed(NotFound(f"there is no {call.path[:100]}; POST /invocations, GET /ping"))
    if method not in allowed:
        refused = handler.failed(MethodNotAllowed(f"{method} {call.path} is not answered"))
        return replace(refused, headers={**refused.headers, "Allow": ", ".join(allowed)})
    return None


async def _write(reply: Reply, headers: list[tuple[bytes, bytes]], send: Send, *, more: bool = False) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": more})


def _record_job(record: Told, job: Job, bucket: str) -> None:
    """Copy what is known of a job into its record; the job itself, and its arrays, are let go."""
    record.bucket, record.items, record.squeezes = bucket, job.items, tuple(job.squeezes)
    record.preprocess, record.postprocess, record.predict_fn = job.pre_seconds, job.post_seconds, job.user_seconds
    way = job.usage
    if way is not None:
        record.device = (way.queue_seconds, way.device_seconds, tuple(way.cores), way.batch_items, way.padding)


def _mistaken(error: Exception) -> Reply:
    """Our own mistake: the log gets the traceback, the caller does not."""
    _log.error("a request failed", exc_info=error)
    return handler.failed(Internal(f"{type(error).__name__}; the worker's log has the details"))


class _Call:
    """One request while it is inside. headers: by name in lower case; of several with one name, joined by commas."""

    def __init__(self, scope: Scope) -> None:
        self.arrived = time.monotonic()
        self.scope = scope
        self.path = str(scope["path"])
        self.headers: dict[str, str] = {}
        headers = self.headers
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self.content_type = headers.get("content-type", "")[:100]
        self.body: bytes | memoryview = b""
        self.job: Job | None = None
        given = next((headers[name] for name in _ID_HEADERS if name in headers), "")
        self.id = given if _ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


async def _read(call: _Call, receive: Receive, limit: int) -> bytes | memoryview:
    """The whole body. Raises TooLarge, _ClientGoneError."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than {limit} bytes, which is what is read at most")
        chunks.append(chunk)
        if not message.get("more_body", False):
            whole: memoryview | None = call.scope.get("extensions", {}).pop(WHOLE_BODY, None)
            if whole is not None:
                return whole
            return b"".join(chunks) if len(chunks) > 1 else chunks[0]


def _deliver(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Reply], reply: Reply) -> None:
    """Give the reply to the event loop, from whichever thread."""

    def deliver() -> None:
        if not future.done():
            future.set_result(reply)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop has ended, and with it whoever waited
        _log.warning("an answer came after the end of the server")


def _headers(reply: Reply, request_id: str) -> list[tuple[bytes, bytes]]:
    pairs = {**reply.headers, "Content-Type": reply.content_type, "X-Request-Id": request_id}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs.items()]
    return [*encoded, (b"content-length", str(len(reply.body)).encode())]
