"""The native server's scheduler: batch_queue.py's decisions, carried out by a thread for each core.

If a core is idle, the request runs immediately, unbatched, on the calling thread: no other thread has to wake up. The
thread of a core that becomes free runs the next batch; meanwhile another thread splits the outputs of the last one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from inference_code.artifact.manifest import PackagedVariant
from inference_code.errors import SHUTTING_DOWN, EndpointError, Unavailable, as_endpoint_error
from inference_code.execution.batch_queue import RETRY_SECONDS, Batch, BatchItem, BatchQueue
from inference_code.execution.batching import (
    BatchRecord,
    ItemResult,
    checked,
    fitting,
    padding_share,
    run_batch,
    split_outputs,
)
from inference_code.execution.request_future import DeviceUsage, RequestFuture
from inference_code.request import Array, Item

# A core's number, a graph and its inputs (batch axis, compiled batch size) to its outputs.
RunOn = Callable[[int, PackagedVariant, "list[Array]"], "list[Array]"]


class QueueScheduler:
    """See the top of this file. One lock guards the queue; no method is called while it is held.

    `close` ends the threads.
    """

    def __init__(
        self,
        graphs: Sequence[PackagedVariant],
        run: RunOn,
        cores: int = 1,
        *,
        max_batch_delay: float = 0.005,
        max_waiting: int = 64,
        observe: Callable[[BatchRecord], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Seconds, and requests. `run` raises EndpointError for a batch that fails; `observe` must not raise."""
        self._graphs = tuple(graphs)
        self._run_on = run
        self._observe = observe
        self._clock = clock
        self._queue = BatchQueue(cores, max_batch_delay=max_batch_delay, max_waiting=max_waiting)
        self._changed = threading.Condition()
        self._finished: SimpleQueue[Batch | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, name=f"core-{n}", daemon=True) for n in range(cores)]
        self._threads.append(threading.Thread(target=self._split, name="split", daemon=True))
        for thread in self._threads:
            thread.start()

    # The callers' side ----------------------------------------------------------------------------------------------

    def run(self, items: Sequence[Item]) -> list[ItemResult]:
        """One result for each item, in order; an EndpointError for one that failed. Raises Unavailable."""
        future = self.submit(items)
        future.wait()
        return future.results

    def submit(self, items: Sequence[Item], deadline: float = math.inf) -> RequestFuture:
        """Take in the items of one request; `deadline` is a time of the clock.

        If a core is idle, one batch of them is run here before this returns. An item that fits no graph gets its error
        as its result. Raises Unavailable when the queue is full or the scheduler closed.
        """
        future, now = RequestFuture(len(items)), self._clock()
        accepted: list[BatchItem] = []
        refused: list[tuple[int, EndpointError]] = []
        for index, item in enumerate(items):
            try:
                graphs = fitting(item, self._graphs)
                checked(item, graphs[0])
                accepted.append(BatchItem(item, index, future, graphs, now, deadline))
            except EndpointError as error:
                refused.append((index, error))
        batch = self._claim(lambda: self._queue.submit(accepted)) if accepted else None
        for index, problem in refused:
            future.set_result(index, problem)
        if batch is not None:
            self._run(batch)
            self._release(batch.core)
            self._finish(batch)
        return future

    def cancel(self, future: RequestFuture) -> None:
        """End what of the request still waits. What is on the device already is not stopped."""
        with self._changed:
            removed = self._queue.cancel(future)
        _fail(removed, "the request was cancelled")

    def waiting(self) -> dict[str, int]:
        """The items that wait, by the file of their bucket's smallest graph."""
        with self._changed:
            return self._queue.waiting()

    def close(self, seconds: float = 5.0) -> bool:
        """Refuse whatever comes, answer what waits with 503, end the threads. Returns whether all have ended."""
        with self._changed:
            removed = self._queue.close()
            self._changed.notify_all()
        _fail(removed, SHUTTING_DOWN)
        end = self._clock() + seconds
        *cores, split = self._threads
        for thread in cores:
            thread.join(max(0.0, end - self._clock()))
        self._finished.put(None)
        split.join(max(0.0, end - self._clock()))
        return not any(thread.is_alive() for thread in self._threads)

    # The queue, under the lock --------------------------------------------------------------------------------------

    def _claim(self, change: Callable[[], None] = lambda: None) -> Batch | None:
        """Change the queue, and take its next batch. What has expired meanwhile gets its error."""
        with self._changed:
            change()
            now = self._clock()
            expired = self._queue.expire(now)
            batch = self._queue.next_batch(now)
            if self._queue.has_batch:
                self._changed.notify()
        _fail(expired, "deadline exceeded while queued")
        return batch

    def _release(self, core: int) -> None:
        with self._changed:
            self._queue.release(core)
            if self._queue.has_batch:
                self._changed.notify()

    def _wait_for_work(self) -> bool:
        """Wait until there is a batch for an idle core. False: the scheduler is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue.closed or self._queue.has_batch)
            return not self._queue.closed

    # The cores' side ------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """A core thread's life: run a batch, and then the next one before the outputs of the last are split."""
        while self._wait_for_work():
            batch = self._claim()
            while batch is not None:
                self._run(batch)
                done, batch = batch, self._claim(lambda core=batch.core: self._queue.release(core))  # type: ignore[misc]
                if batch is None:
                    self._finish(done)
                else:
                    self._finished.put(done)

    def _split(self) -> None:
        """The life of the thread that finishes batches whose core went on with the next."""
        while (batch := self._finished.get()) is not None:
            self._finish(batch)

    def _run(self, batch: Batch) -> None:
        """Run a batch on its core. When it fails, each of its items is run alone, so that only the bad one fails."""
        items = [one.item for one in batch.items]
        batch.started = self._clock()
        try:
            batch.outputs = self._call(batch, items)
        except EndpointError as error:
            batch.results = [error] if len(items) == 1 else [self._run_alone(batch, item) for item in items]
        batch.ended = self._clock()

    def _run_alone(self, batch: Batch, item: Item) -> ItemResult:
        try:
            return split_outputs(batch.graph, [item], self._call(batch, [item]))[0]
        except EndpointError as error:
            return error

    def _call(self, batch: Batch, items: Sequence[Item]) -> list[Array]:
        """The graph's outputs. Raises EndpointError alone: a core's thread must not end."""
        try:
            return run_batch(batch.graph, items, lambda graph, arrays: self._run_on(batch.core, graph, arrays))
        except EndpointError:
            raise
        except Exception as error:
            raise as_endpoint_error(error) from error

    def _finish(self, batch: Batch) -> None:
        """Record the batch, and set the result of each of its items."""
        items, graph, failed = [one.item for one in batch.items], batch.graph, batch.outputs is None
        results = batch.results if batch.outputs is None else split_outputs(graph, items, batch.outputs)
        waited = tuple(batch.started - one.submitted for one in batch.items)
        seconds, padding = batch.ended - batch.started, padding_share(graph, items)
        self._observe(BatchRecord(graph, batch.core, waited, seconds, padding, failed))
        graphs, cores = frozenset((graph.file,)), frozenset((batch.core,))
        for one, wait, result in zip(batch.items, waited, results, strict=True):
            usage = DeviceUsage(wait, seconds, graphs, cores, len(items), padding)
            one.future.set_result(one.index, result, usage)


def _fail(items: Sequence[BatchItem], detail: str) -> None:
    for one in items:
        one.future.set_result(one.index, Unavailable(detail, retry_after=RETRY_SECONDS))
