"""The way of a request through the native server's threads: decode, device, encode.

Decoding and encoding leave the interpreter's lock (Pillow, numpy) and run in a pool of a thread a processor. A request
that finds a core idle runs on it in the thread that decoded it, and is encoded there: one change of thread in all. One
that has to wait gives its thread back; the thread of the core that answers it hands it to the pool for encoding. The
pool has a thread more for each core, so that decoding goes on while cores are waited for.

A task that calls the model more than once an item has its loops in a pool of their own, a thread an item: they mostly
wait, and the steps of all of them meet in the scheduler's queues.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inference_code import handler
from inference_code.codecs.responses import Reply
from inference_code.errors import SHUTTING_DOWN, EndpointError, Internal, Unavailable
from inference_code.execution.batching import BatchRecord, ItemResult, label
from inference_code.execution.model import Model
from inference_code.execution.request_future import DeviceUsage, RequestFuture
from inference_code.execution.scheduler import QueueScheduler
from inference_code.generation import answered
from inference_code.handler import Done, Headers, Served, Work
from inference_code.observability.request_id import request_id
from inference_code.request import Item
from inference_code.server.thread_pool import Pool
from inference_code.settings import Settings

_log = logging.getLogger(__name__)


class Job:
    """One request on its way. `answer` is called once, on any thread; times are seconds."""

    def __init__(
        self,
        body: bytes | memoryview,
        content_type: str,
        context: Headers,
        answer: Callable[[Reply], None],
        *,
        deadline: float = math.inf,
        request_id: str = "-",
    ) -> None:
        self.body, self.content_type, self.context = body, content_type, context
        self.deadline = deadline  # a time of time.monotonic
        self.request_id = request_id
        self.pre_seconds = self.post_seconds = 0.0
        self.user_seconds = 0.0  # in a user's predict_fn, which calls the device itself
        self.items = 0
        self.squeezes: list[float] = []  # of the pictures among the items
        self.usage: DeviceUsage | None = None  # None: nothing of it was sent to the device
        self.futures: set[RequestFuture] = set()  # of its calls of the device that are under way
        self.lock = threading.Lock()
        self.given_up = False
        self._answer = answer
        self._answered = False

    def finish(self, reply: Reply) -> None:
        """Answer, unless it has been answered."""
        with self.lock:
            if self._answered:
                return
            self._answered = True
        self._answer(reply)


class Pipeline:
    """The threads of one served model. `observe` gets each batch."""

    def __init__(
        self, served: Served, settings: Settings, observe: Callable[[BatchRecord], None] = lambda _: None
    ) -> None:
        self._served = served
        at_once = int(getattr(served.model, "at_once", 1))
        self._cpu = Pool(settings.host_threads + at_once, "cpu")
        self._device: ThreadPoolExecutor | None = None
        self._scheduler: QueueScheduler | None = None
        self._labels = {graph.file: label(graph) for graph in served.manifest.graphs}
        if handler.batches(served) and isinstance(served.model, Model):
            self._scheduler = QueueScheduler(
                served.manifest.graphs,
                served.model.run_on,
                at_once,
                max_batch_delay=settings.max_batch_delay_ms / 1000,
                max_waiting=settings.max_queue,
                observe=observe,
            )
        else:  # a user's predict_fn calls the device itself, with one request at a time
            self._device = ThreadPoolExecutor(at_once, "device")
        self._loops: ThreadPoolExecutor | None = None
        if self._scheduler is not None and handler.decodes(served):
            largest = max(graph.batch_size for graph in served.manifest.graphs)
            # Twice what the cores hold at once, so that the next batch is waiting when one is done.
            self._loops = ThreadPoolExecutor(min(2 * at_once * largest, settings.max_queue), "loop")

    def start(self, job: Job) -> None:
        """Send a request on its way."""
        self._on_cpu(self._decode, job)

    def give_up(self, job: Job, error: EndpointError) -> None:
        """Answer with `error` now; what of the request has not reached the device never will."""
        job.given_up = True
        if self._scheduler is not None:
            with job.lock:
                futures = list(job.futures)
            for future in futures:
                self._scheduler.cancel(future)
        job.finish(handler.failed(error))

    def waiting(self) -> int:
        """The items that wait for the device."""
        return sum(self._scheduler.waiting().values()) if self._scheduler is not None else 0

    def bucket(self, job: Job) -> str:
        """Where the items of a request ran: `image=28x28`, several joined by +, "none" for no device."""
        files = job.usage.graphs if job.usage is not None else ()
        return "+".join(sorted({self._labels[file] for file in files})) or "none"

    def close(self, seconds: float) -> bool:
        """End the threads, waiting `seconds` at most. Returns whether none is left working."""
        end = time.monotonic() + seconds
        ended = self._scheduler.close(seconds) if self._scheduler is not None else True
        self._cpu.close()
        pools = [pool for pool in (self._device, self._loops) if pool is not None]
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        ended = self._cpu.join(end) and ended
        for thread in (thread for pool in pools for thread in pool._threads):  # there is no public way to wait a while
            thread.join(max(0.0, end - time.monotonic()))
            ended = ended and not thread.is_alive()
        return ended

    # The steps ----------------------------------------------------------------------------------------------------

    def _on_cpu(self, step: Callable[[Job], None], job: Job, *, ending: bool = False) -> None:
        try:
            self._cpu.submit(lambda: self._guarded(step, job), ending=ending)
        except RuntimeError:
            job.finish(handler.failed(Unavailable(SHUTTING_DOWN, retry_after=1)))

    def _submit(self, pool: ThreadPoolExecutor, step: Callable[[Job], None], job: Job) -> None:
        try:
            pool.submit(self._guarded, step, job)
        except RuntimeError:  # the pool is shut down
            job.finish(handler.failed(Unavailable(SHUTTING_DOWN, retry_after=1)))

    def _guarded(self, step: Callable[[Job], None], job: Job) -> None:
        """Run a step; whatever goes wrong, the request is answered, and a request that is over goes no further."""
        token = request_id.set(job.request_id)
        try:
            if job.given_up or time.monotonic() >= job.deadline:
                raise Unavailable("its time was up; try again", retry_after=1)
            step(job)
        except EndpointError as error:
            job.finish(handler.failed(error))
        except BaseException as error:  # a handler's sys.exit, too, ends neither a thread nor a request without answer
            _log.exception("a request failed")
            job.finish(handler.failed(Internal(f"{type(error).__name__}; the worker's log has the details")))
        finally:
            request_id.reset(token)

    def _decode(self, job: Job) -> None:
        started = time.monotonic()
        work = handler.input_fn(job.body, job.content_type, job.context)
        job.pre_seconds, job.items = time.monotonic() - started, len(work)
        job.squeezes = [one.item.squeeze for one in work if one.item is not None and one.item.squeeze is not None]
        if job.given_up:
            return
        if self._scheduler is None:
            assert self._device is not None  # noqa: S101
            self._submit(self._device, lambda one: self._by_user(one, work), job)
            return
        if self._loops is not None:
            self._start_loops(job, work, self._loops, self._scheduler)
            return
        future = self._call(job, handler.ready(work), self._scheduler)
        if not future.add_done_callback(
            lambda: self._on_cpu(lambda one: self._encode(one, work, future), job, ending=True)
        ):
            self._encode(job, work, future)

    def _call(self, job: Job, items: Sequence[Item], scheduler: QueueScheduler) -> RequestFuture:
        """Send items of the request to the device. Raises Unavailable."""
        future = scheduler.submit(items, job.deadline)
        with job.lock:
            job.futures.add(future)
            job.usage = job.usage or DeviceUsage()
        if job.given_up:  # before the future was known
            scheduler.cancel(future)
        return future

    def _results(self, job: Job, future: RequestFuture) -> list[ItemResult]:
        """The results of a call that is done."""
        with job.lock:
            job.futures.discard(future)
            if job.usage is not None:
                job.usage.add_sequential(future.usage)
        return future.results

    def _start_loops(self, job: Job, work: Sequence[Work], pool: ThreadPoolExecutor, scheduler: QueueScheduler) -> None:
        """A loop for each item; the last one to end encodes the request."""
        items = handler.ready(work)
        outcomes: list[Any] = [None] * len(items)
        left, lock = len(items), threading.Lock()

        def call(items: Sequence[Item]) -> list[Any]:
            if job.given_up or time.monotonic() >= job.deadline:
                raise Unavailable("its time was up; try again", retry_after=1)
            future = self._call(job, items, scheduler)
            future.wait()
            return answered(self._results(job, future))

        def loop(job: Job, index: int) -> None:
            nonlocal left
            outcomes[index] = handler.decoded(items[index], self._served, call)
            with lock:
                left -= 1
                last = left == 0
            if last:
                self._reply(job, handler.joined(work, outcomes))

        for index in range(len(items)):
            self._submit(pool, lambda one, index=index: loop(one, index), job)  # type: ignore[misc]
        if not items:
            self._reply(job, handler.joined(work, outcomes))

    def _by_user(self, job: Job, work: Sequence[Work]) -> None:
        started = time.monotonic()
        done = handler.predict_fn(work, self._served, job.context)
        job.user_seconds = time.monotonic() - started
        self._on_cpu(lambda one: self._reply(one, done), job, ending=True)

    def _encode(self, job: Job, work: Sequence[Work], future: RequestFuture) -> None:
        self._reply(job, handler.joined(work, self._results(job, future)))

    def _reply(self, job: Job, done: Sequence[Done]) -> None:
        started = time.monotonic()
        reply = handler.reply(done)
        job.post_seconds = time.monotonic() - started
        job.finish(reply)
