"""A request's steps on the native server's threads: decode, device, encode.

Decoding and encoding release the GIL (Pillow, numpy) and run in a pool of a thread a processor. A request that finds a
core idle runs on it in the thread that decoded it, and is encoded there: one change of thread in all. One that has to
wait gives its thread back; the thread of the core that runs it hands it to the pool for encoding. The pool has a thread
more for each core, so that decoding goes on while cores are waited for.

A task that calls the model more than once an item has its decoding loops in a pool of their own, a thread an item: they
mostly wait, and the steps of all of them meet in the scheduler's queues.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inference_code.errors import SHUTTING_DOWN, EndpointError, Unavailable
from inference_code.execution.batching import BatchRecord, ItemResult, label
from inference_code.execution.model import Model
from inference_code.execution.request_future import RequestFuture
from inference_code.execution.scheduler import QueueScheduler
from inference_code.generation import answered
from inference_code.handler import Headers, ModelHandler, RequestItem, ready, with_results
from inference_code.observability.request_id import request_id
from inference_code.request import Item
from inference_code.server.server_request import ServerRequest
from inference_code.server.thread_pool import Pool
from inference_code.settings import Settings

Step = Callable[[ServerRequest], None]


class Pipeline:
    """The threads of one model. `observe` gets a record of each batch."""

    def __init__(
        self, handler: ModelHandler, settings: Settings, observe: Callable[[BatchRecord], None] = lambda _: None
    ) -> None:
        self._handler, loaded = handler, handler.loaded
        cores = loaded.max_concurrency
        self._cpu = Pool(settings.host_threads + cores, "cpu")
        self._deadlines: dict[int, float] = {}  # of what runs, by thread
        self._encoders = functools.partial(self._cpu.submit, ending=True)
        self._workers: ThreadPoolExecutor | None = None  # where the scheduler alone does not do
        self._scheduler: QueueScheduler | None = None
        self._labels = {graph.file: label(graph) for graph in loaded.manifest.graphs}
        if not (loaded.batches_requests and isinstance(loaded.model, Model)):
            self._workers = ThreadPoolExecutor(cores, "device")
            self._infer = functools.partial(self._infer_by_user, self._workers)
            return
        self._scheduler = QueueScheduler(
            loaded.manifest.graphs,
            loaded.model.run_on,
            cores,
            max_batch_delay=settings.max_batch_delay_ms / 1000,
            max_waiting=settings.max_queue,
            observe=observe,
        )
        self._infer = functools.partial(self._infer_batched, self._scheduler)
        if loaded.has_decoding:
            largest = max(graph.batch_size for graph in loaded.manifest.graphs)
            # Twice what the cores hold at once, so that the next batch is waiting when one is done.
            self._workers = ThreadPoolExecutor(min(2 * cores * largest, settings.max_queue), "loop")
            self._infer = functools.partial(self._infer_in_loops, self._scheduler, self._workers)

    def start(self, request: ServerRequest) -> None:
        """Begin with a request; its `respond` is called once, on any thread."""
        self._submit(self._cpu.submit, self._decode, request)

    def cancel(self, request: ServerRequest, error: EndpointError) -> None:
        """Respond with `error` now; what of the request has not reached the device never will."""
        request.cancelled = True
        if self._scheduler is not None:
            for future in request.calls():
                self._scheduler.cancel(future)
        request.finish(self._handler.error_reply(error))

    def waiting(self) -> int:
        """The items that wait for the device."""
        return sum(self._scheduler.waiting().values()) if self._scheduler is not None else 0

    def is_stuck(self) -> bool:
        """Whether every decoding thread works for a request that is past its deadline: nothing new can be decoded."""
        now, deadlines = time.monotonic(), self._deadlines
        return all(deadlines.get(ident, math.inf) < now for ident in self._cpu.idents)

    def bucket(self, request: ServerRequest) -> str:
        """Where the items of a request ran: `image=28x28`, several joined by +, "none" for no device."""
        files = request.device.graphs if request.device is not None else ()
        return "+".join(sorted({self._labels[file] for file in files})) or "none"

    def close(self, seconds: float) -> bool:
        """End the threads, waiting `seconds` at most. Returns whether none is left working."""
        end = time.monotonic() + seconds
        ended = self._scheduler.close(seconds) if self._scheduler is not None else True
        self._cpu.close()
        if self._workers is not None:
            self._workers.shutdown(wait=False, cancel_futures=True)
        ended = self._cpu.join(end) and ended
        for thread in self._workers._threads if self._workers is not None else ():  # there is no public timed wait
            thread.join(max(0.0, end - time.monotonic()))
            ended = ended and not thread.is_alive()
        return ended

    # On the threads -------------------------------------------------------------------------------------------------

    def _submit(self, submit: Callable[[Callable[[], None]], Any], step: Step, request: ServerRequest) -> None:
        try:
            submit(lambda: self._run(step, request))
        except RuntimeError:  # the pool is closed
            request.finish(self._handler.error_reply(Unavailable(SHUTTING_DOWN, retry_after=1)))

    def _run(self, step: Step, request: ServerRequest) -> None:
        """The error boundary of the threads: whatever a step raises is the response, and ends no thread.

        A handler's sys.exit, too: hence BaseException.
        """
        token = request_id.set(request.request_id)
        ident = threading.get_ident()
        self._deadlines[ident] = request.deadline
        try:
            request.check_deadline()
            step(request)
        except BaseException as error:
            request.finish(self._handler.error_reply(error))
        finally:
            del self._deadlines[ident]
            request_id.reset(token)

    def _decode(self, request: ServerRequest) -> None:
        started = time.monotonic()
        items = self._handler.input(request.body, request.headers.get("content-type", ""), Headers(request.headers))
        request.preprocess_seconds, request.items = time.monotonic() - started, len(items)
        found = (one.item.aspect_distortion for one in items if one.item is not None)
        request.aspect_distortions = tuple(one for one in found if one is not None)
        if not request.cancelled:
            self._infer(request, items)

    def _infer_batched(self, scheduler: QueueScheduler, request: ServerRequest, items: Sequence[RequestItem]) -> None:
        """Each item goes to the device once: the scheduler's callback, or this thread, encodes the response."""
        future = self._call(scheduler, request, ready(items))

        def encode(request: ServerRequest) -> None:
            self._encode(request, with_results(items, request.end_call(future)))

        if not future.add_done_callback(lambda: self._submit(self._encoders, encode, request)):
            encode(request)

    def _infer_in_loops(
        self,
        scheduler: QueueScheduler,
        pool: ThreadPoolExecutor,
        request: ServerRequest,
        items: Sequence[RequestItem],
    ) -> None:
        """A decoding loop for each item; the last one to end encodes the response."""
        inputs = ready(items)
        results: dict[int, ItemResult] = {}
        lock = threading.Lock()

        def call(some: Sequence[Item]) -> list[Any]:
            request.check_deadline()
            future = self._call(scheduler, request, some)
            future.wait()
            return answered(request.end_call(future))

        def loop(index: int, request: ServerRequest) -> None:
            result = self._handler.decode(inputs[index], call)
            with lock:
                results[index] = result
                last = len(results) == len(inputs)
            if last:
                self._encode(request, with_results(items, [results[n] for n in range(len(inputs))]))

        for index in range(len(inputs)):
            self._submit(pool.submit, functools.partial(loop, index), request)
        if not inputs:
            self._encode(request, items)

    def _infer_by_user(self, pool: ThreadPoolExecutor, request: ServerRequest, items: Sequence[RequestItem]) -> None:
        """A user's predict_fn calls the device itself, with one request at a time."""

        def predict(request: ServerRequest) -> None:
            started = time.monotonic()
            done = self._handler.predict(items, Headers(request.headers))
            request.predict_fn_seconds = time.monotonic() - started
            self._submit(self._encoders, lambda one: self._encode(one, done), request)

        self._submit(pool.submit, predict, request)

    def _call(self, scheduler: QueueScheduler, request: ServerRequest, items: Sequence[Item]) -> RequestFuture:
        """Send items to the device for a request. Raises Unavailable."""
        future = scheduler.submit(items, request.deadline)
        request.begin_call(future)
        if request.cancelled:  # before the call was known
            scheduler.cancel(future)
        return future

    def _encode(self, request: ServerRequest, items: Sequence[RequestItem]) -> None:
        started = time.monotonic()
        reply = self._handler.output(items)
        request.postprocess_seconds = time.monotonic() - started
        request.finish(reply)
