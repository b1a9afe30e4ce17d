"""The native server's routes: POST /invocations and GET /ping, which are SageMaker's, and GET /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from inference_code import handler, metrics
from inference_code.answers import Reply
from inference_code.errors import (
    EndpointError,
    Internal,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    TooLarge,
    Unavailable,
)
from inference_code.logs import CloudWatch, Writer, to_stdout
from inference_code.metrics import Metrics
from inference_code.pipeline import Job, Pipeline
from inference_code.scheduler import Batch
from inference_code.settings import Settings

_DRAIN_BODY_SECONDS = 10.0
_WATCH_AFTER = 0.005  # seconds
_log = logging.getLogger(__name__)

# A caller's own request id is kept: X-Request-Id, or the InferenceId that boto3's invoke_endpoint takes.
_ID_HEADERS = ("x-request-id", "x-amzn-sagemaker-inference-id")
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Service:
    """The routes, and what is known of the requests inside."""

    def __init__(self, served: handler.Served, settings: Settings, write: Callable[[bytes], None] = to_stdout) -> None:
        self._settings = settings
        self._name = served.manifest.name
        self._metrics = Metrics()
        self._writer = Writer(write, self._metrics.dropped.add, self._tick)
        self._cloudwatch = CloudWatch(self._name, self._writer.put)
        self._pipeline = Pipeline(served, settings, self._observe)
        self._jobs: set[Job] = set()
        self._inside = 0
        self._drain_ends: float | None = None

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/ping", self.ping, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/invocations", self.invocations, methods=["POST"]),
        ]
        app = Starlette(
            routes=routes, exception_handlers={HTTPException: self._http_error, Exception: self._unexpected}
        )
        app.router.redirect_slashes = False
        return app

    async def ping(self, _: Request) -> Response:
        """200: the model was loaded and answered before the port was opened. 503 once the server is ending."""
        return Response(status_code=200 if self._drain_ends is None else 503)

    async def metrics(self, _: Request) -> Response:
        """Prometheus' text."""
        gauges = {
            "endpoint_requests_inside": ("Requests that are not answered yet.", float(self._inside)),
            "endpoint_items_waiting": ("Items that wait for the device.", float(self._pipeline.waiting())),
        }
        return Response(self._metrics.text(gauges), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def invocations(self, request: Request) -> Response:
        """One request through the handler; an error is answered as JSON {error, detail}."""
        arrived = time.monotonic()
        call = _Call(request, arrived)
        if self._inside >= self._settings.max_queue:
            busy = Unavailable(
                f"{self._inside} requests are being worked on, which is as many as may; try again", retry_after=1
            )
            return self._answered(call, handler.failed(busy))
        self._inside += 1
        try:
            call.body = await asyncio.wait_for(self._body(request), self._settings.body_timeout_s)
            return self._answered(call, await self._answer(call), later=True)
        except asyncio.TimeoutError:
            seconds = self._settings.body_timeout_s
            late = RequestTimeout(f"the body did not arrive within {seconds:g} s")
            return _close(self._answered(call, handler.failed(late)))
        except EndpointError as error:  # of _body, before the request was read to its end
            return _Draining(_close(self._answered(call, handler.failed(error))), self._settings.limits.request_bytes)
        except ClientDisconnect:
            self._metrics.gone.add()
            self._log_request(call, {"status": None, "error": "client_gone"})
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

    async def _answer(self, call: _Call) -> Reply:
        """Send the request through the pipeline. Raises ClientDisconnect, and then its work is given up."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        call.job = job = Job(
            call.body,
            call.request.headers.get("content-type", ""),
            _context(call.request),
            lambda reply: _deliver(loop, future, reply),
            deadline=call.arrived + self._settings.deadline_s,
            request_id=call.id,
        )
        self._jobs.add(job)
        watch = _Watch(call.request, lambda: self._leave(job, future))
        late = loop.call_later(max(0.0, job.deadline - time.monotonic()), self._expire, job)
        try:
            self._pipeline.start(job)
            return await future
        finally:
            watch.end()
            late.cancel()
            self._jobs.discard(job)

    def _expire(self, job: Job) -> None:
        """The request's time is up. On the event loop."""
        seconds = self._settings.deadline_s
        self._pipeline.give_up(job, Unavailable(f"there is no answer after {seconds:g} s; try again", retry_after=1))

    def _leave(self, job: Job, future: asyncio.Future[Reply]) -> None:
        """The client has gone. On the event loop."""
        if not future.done():
            future.set_exception(ClientDisconnect())
        self._pipeline.give_up(job, Unavailable("the client has gone"))

    def drain(self) -> None:
        """SIGTERM: finish what is inside; after drain_s seconds the rest is answered 503. On the event loop."""
        self._drain_ends = time.monotonic() + self._settings.drain_s
        asyncio.get_running_loop().call_later(self._settings.drain_s, self._give_up_all)

    def _give_up_all(self) -> None:
        for job in list(self._jobs):
            self._pipeline.give_up(job, Unavailable("the worker is shutting down; try again", retry_after=1))

    def close(self, seconds: float) -> bool:
        """End the threads, within `seconds` or what is left of the drain, and write the last lines.

        Returns whether no thread is left working.
        """
        left = 0.0 if self._drain_ends is None else self._drain_ends - time.monotonic()
        ended = self._pipeline.close(max(seconds, left))
        self._cloudwatch.flush()
        self._writer.close()
        return ended

    def _tick(self) -> None:
        self._cloudwatch.tick()

    async def _http_error(self, request: Request, error: Exception) -> Response:
        """Starlette's own 404 and 405, as JSON."""
        call, path = _Call(request, time.monotonic()), request.url.path[:100]
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status != 405:
            return self._answered(call, handler.failed(NotFound(f"there is no {path}; POST /invocations, GET /ping")))
        response = self._answered(call, handler.failed(MethodNotAllowed(f"{request.method} {path} is not answered")))
        response.headers.update(dict(getattr(error, "headers", None) or {}))
        return response

    async def _unexpected(self, request: Request, error: Exception) -> Response:
        """Our own mistake: the log gets the traceback, the caller does not."""
        _log.error("a request failed", exc_info=error)
        internal = Internal(f"{type(error).__name__}; the worker's log has the details")
        return self._answered(_Call(request, time.monotonic()), handler.failed(internal))

    # What is told ---------------------------------------------------------------------------------------------------

    def _observe(self, batch: Batch) -> None:
        self._metrics.batch(batch)
        self._cloudwatch.batch(batch)

    def _answered(self, call: _Call, reply: Reply, *, later: bool = False) -> Response:
        """The response, counted and logged: now, or when it has been sent."""
        response = _response(reply)
        response.headers["X-Request-Id"] = call.id
        seconds = time.monotonic() - call.arrived

        async def tell() -> None:
            self._tell(call, reply, seconds)

        if later:
            response.background = BackgroundTask(tell)
        else:
            self._tell(call, reply, seconds)
        return response

    def _tell(self, call: _Call, reply: Reply, seconds: float) -> None:
        self._metrics.requests.add(str(reply.status))
        self._metrics.total.observe(seconds)
        if call.job is not None:
            bucket = self._pipeline.bucket(call.job)
            self._metrics.pre.observe(call.job.pre_seconds, bucket)
            self._metrics.post.observe(call.job.post_seconds, bucket)
            self._cloudwatch.request(bucket, call.job.pre_seconds, call.job.post_seconds)
            for squeeze in call.job.squeezes:
                self._metrics.squeeze.observe(squeeze, bucket)
            if call.job.user_seconds:
                self._metrics.user.observe(call.job.user_seconds)
        error = {"error": reply.body.decode("ascii", "replace")[:300]} if reply.status >= 400 else {}
        outcome = {"status": reply.status, "response_bytes": len(reply.body), "answer": reply.content_type}
        self._log_request(call, {**outcome, **error})

    def _log_request(self, call: _Call, outcome: Mapping[str, Any]) -> None:
        line: dict[str, Any] = {
            "event": "request",
            "time": int(time.time() * 1000),
            "endpoint": self._name,
            "request_id": call.id,
            **outcome,
            "content_type": call.request.headers.get("content-type", "")[:100],
            "request_bytes": len(call.body),
            "total_ms": _ms(time.monotonic() - call.arrived),
        }
        if call.request.scope["path"] != "/invocations":
            line["path"] = call.request.scope["path"][:100]
        job = call.job
        if job is not None:
            line |= {"items": job.items, "bucket": self._pipeline.bucket(job)}
            line |= {"preprocess_ms": _ms(job.pre_seconds), "postprocess_ms": _ms(job.post_seconds)}
            if job.squeezes:
                line["squeeze"] = round(max(job.squeezes), 4)
            if job.ticket is not None:
                ticket = job.ticket
                line |= {"queue_ms": _ms(ticket.queue_seconds), "device_ms": _ms(ticket.device_seconds)}
                line |= {"core": sorted(ticket.cores), "batch_items": ticket.batch_items}
                line |= {"padding": round(ticket.padding, 4)}
            elif job.user_seconds:
                line |= {"predict_fn_ms": _ms(job.user_seconds)}
        self._writer.put(line)


class _Call:
    """One POST while it is inside."""

    def __init__(self, request: Request, arrived: float) -> None:
        self.request = request
        self.arrived = arrived
        self.body = b""
        self.job: Job | None = None
        given = next((request.headers[name] for name in _ID_HEADERS if name in request.headers), "")
        self.id = given if _ID.fullmatch(given) else uuid.uuid4().hex


def _context(request: Request) -> handler.Headers:
    names = {name.lower() for name in request.headers}
    return handler.Headers({name: ", ".join(request.headers.getlist(name)) for name in names})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


class _Watch:
    """Calls `left` when the client closes the connection. The body has been read.

    It begins to look after _WATCH_AFTER seconds: a request that is answered by then needs no task that looks.
    """

    def __init__(self, request: Request, left: Callable[[], None]) -> None:
        self._request, self._left = request, left
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._left()

    def end(self) -> None:
        """Look no longer."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


def _deliver(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Reply], reply: Reply) -> None:
    """Give the reply to the event loop, from whichever thread."""

    def deliver() -> None:
        if not future.done():
            future.set_result(reply)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:  # the loop has ended, and with it whoever waited
        _log.warning("an answer came after the end of the server")


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, {**reply.headers, "Content-Type": reply.content_type})


def _close(response: Response) -> Response:
    """The connection cannot be used again: part of the request's body was never read."""
    response.headers["Connection"] = "close"
    return response


class _Draining(Response):
    """A response that is sent before the request's body has been read.

    A socket that is closed with unread bytes resets the connection, and the client may lose the answer that it was
    sent. So the body is read on for a while, and thrown away, before the response ends.
    """

    def __init__(self, response: Response, most: int) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = response.raw_headers
        self._most = most  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI's)
        """Send, read on, end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._drain(receive), _DRAIN_BODY_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self, receive: Receive) -> None:
        left = self._most
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
