"""The way of a request through the native server's threads: decode, device, encode.

Decoding and encoding leave the interpreter's lock (Pillow, numpy) and run in a pool of a thread a processor. A request
that finds a core idle runs on it in the thread that decoded it, and is encoded there: one change of thread in all. One
that has to wait gives its thread back; the thread of the core that answers it hands it to the pool for encoding. The
pool has a thread more for each core, so that decoding goes on while cores are waited for.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from inference_code import handler, logs
from inference_code.answers import Reply
from inference_code.batching import label
from inference_code.errors import EndpointError, Internal, Unavailable
from inference_code.handler import Done, Headers, Served, Work
from inference_code.runtime import Model
from inference_code.scheduler import Batch, QueueScheduler, Ticket
from inference_code.settings import Settings

_log = logging.getLogger(__name__)


class Job:
    """One request on its way. `answer` is called once, on any thread; times are seconds."""

    def __init__(
        self,
        body: bytes,
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
        self.items = 0
        self.ticket: Ticket | None = None
        self.given_up = False
        self._answer = answer
        self._answered = False
        self._lock = threading.Lock()

    def finish(self, reply: Reply) -> None:
        """Answer, unless it has been answered."""
        with self._lock:
            if self._answered:
                return
            self._answered = True
        self._answer(reply)


class Pipeline:
    """The threads of one served model. `observe` gets each batch."""

    def __init__(self, served: Served, settings: Settings, observe: Callable[[Batch], None] = lambda _: None) -> None:
        self._served = served
        at_once = int(getattr(served.model, "at_once", 1))
        self._cpu = ThreadPoolExecutor((os.cpu_count() or 1) + at_once, "cpu")
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

    def start(self, job: Job) -> None:
        """Send a request on its way."""
        self._submit(self._cpu, self._decode, job)

    def give_up(self, job: Job, error: EndpointError) -> None:
        """Answer with `error` now; what of the request has not reached the device never will."""
        job.given_up = True
        if job.ticket is not None and self._scheduler is not None:
            self._scheduler.cancel(job.ticket)
        job.finish(handler.failed(error))

    def waiting(self) -> int:
        """The items that wait for the device."""
        return sum(self._scheduler.waiting().values()) if self._scheduler is not None else 0

    def bucket(self, job: Job) -> str:
        """Where the items of a request ran: `image=28x28`, several joined by +, "none" for no device."""
        files = job.ticket.graphs if job.ticket is not None else ()
        return "+".join(sorted({self._labels[file] for file in files})) or "none"

    def close(self, seconds: float) -> bool:
        """End the threads, waiting `seconds` at most. Returns whether none is left working."""
        end = time.monotonic() + seconds
        ended = self._scheduler.close(seconds) if self._scheduler is not None else True
        for pool in (self._cpu, self._device):
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._cpu, self._device):
            for thread in pool._threads if pool is not None else ():  # there is no public way to wait for a while
                thread.join(max(0.0, end - time.monotonic()))
                ended = ended and not thread.is_alive()
        return ended

    # The steps ----------------------------------------------------------------------------------------------------

    def _submit(self, pool: ThreadPoolExecutor, step: Callable[[Job], None], job: Job) -> None:
        try:
            pool.submit(self._guarded, step, job)
        except RuntimeError:  # the pool is shut down
            job.finish(handler.failed(Unavailable("the worker is shutting down; try again", retry_after=1)))

    def _guarded(self, step: Callable[[Job], None], job: Job) -> None:
        """Run a step; whatever goes wrong, the request is answered, and a request that is over goes no further."""
        token = logs.request_id.set(job.request_id)
        try:
            if job.given_up or time.monotonic() >= job.deadline:
                raise Unavailable("its time was up; try again", retry_after=1)
            step(job)
        except EndpointError as error:
            job.finish(handler.failed(error))
        except Exception as error:
            _log.exception("a request failed")
            job.finish(handler.failed(Internal(f"{type(error).__name__}; the worker's log has the details")))
        finally:
            logs.request_id.reset(token)

    def _decode(self, job: Job) -> None:
        started = time.monotonic()
        work = handler.input_fn(job.body, job.content_type, job.context)
        job.pre_seconds, job.items = time.monotonic() - started, len(work)
        if job.given_up:
            return
        if self._scheduler is None:
            assert self._device is not None  # noqa: S101
            self._submit(self._device, lambda one: self._by_user(one, work), job)
            return
        job.ticket = ticket = self._scheduler.submit(handler.ready(work), job.deadline)
        if job.given_up:  # between the decoding and the ticket
            self._scheduler.cancel(ticket)
        if not ticket.then(lambda: self._submit(self._cpu, lambda one: self._encode(one, work, ticket), job)):
            self._encode(job, work, ticket)

    def _by_user(self, job: Job, work: Sequence[Work]) -> None:
        done = handler.predict_fn(work, self._served, job.context)
        self._submit(self._cpu, lambda one: self._reply(one, done), job)

    def _encode(self, job: Job, work: Sequence[Work], ticket: Ticket) -> None:
        self._reply(job, handler.joined(work, ticket.outcomes))

    def _reply(self, job: Job, done: Sequence[Done]) -> None:
        started = time.monotonic()
        reply = handler.reply(done)
        job.post_seconds = time.monotonic() - started
        job.finish(reply)
