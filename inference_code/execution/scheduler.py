"""The one scheduler: a queue for each bucket, a token for each core, and batches that form only while cores are busy.

A request whose core is idle goes out at once, alone, on the thread that brings it: no thread has to wake up for it.
While every core is busy requests wait in the queue of their bucket; a core that becomes free takes as many as the
compiled batch holds. Nothing ever waits for a batch to fill, and a core never waits for the answers of its last batch
to be taken apart: when the next one is waiting, another thread does that.

Which bucket: the one whose next batch is fullest, unless one has waited longer than max_batch_delay; then the one that
has waited longest. Which items: one of each waiting request in turn, so that a request of many items does not hold up
the requests of one; a request's place in the turn is as old as its last turn, so that it does not hold up the other
buckets either. A request that is cancelled, or whose deadline has passed, never reaches the device.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from inference_code.artifact.manifest import PackagedVariant
from inference_code.errors import SHUTTING_DOWN, EndpointError, Internal, Unavailable
from inference_code.execution.batching import Outcome, checked, fitting, run_batch, taken_apart
from inference_code.request import Array, Item

_log = logging.getLogger(__name__)

# A core's number, a graph and its inputs (batch axis, compiled batch size) to its outputs.
RunOn = Callable[[int, PackagedVariant, "list[Array]"], "list[Array]"]
_RETRY_SECONDS = 1


@dataclass(frozen=True)
class Batch:
    """One call of the device, for whoever observes: `waited` has the seconds in the queue of each of its items.

    padding: the share of the elements of its inputs, 0 to 1, that no caller sent.
    """

    graph: PackagedVariant
    core: int
    waited: tuple[float, ...]
    seconds: float
    padding: float
    failed: bool = False


class Ticket:
    """The items of one request on their way; `outcomes` are complete once `done`."""

    def __init__(self, items: Sequence[Item], submitted: float, deadline: float) -> None:
        self.items = tuple(items)
        self.submitted = submitted
        self.deadline = deadline
        self.outcomes: list[Outcome] = [None] * len(items)
        self.queue_seconds = 0.0  # the longest wait of an item
        self.device_seconds = 0.0  # the longest batch that an item was in
        self.graphs: set[str] = set()
        self.cores: set[int] = set()
        self.batch_items = 0  # of the largest batch that an item was in, padding not counted
        self.padding = 0.0  # the largest share of a batch that was padding
        self._left = len(items)
        self._callback: Callable[[], None] | None = None
        self._changed = threading.Condition()

    @property
    def done(self) -> bool:
        """Whether every item has its outcome."""
        return self._left == 0

    def then(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called by the thread that settles the last item. False: all are settled, it is not called."""
        with self._changed:
            if not self.done:
                self._callback = callback
            return not self.done

    def wait(self, seconds: float | None) -> bool:
        """Wait until done, at most `seconds`. Returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.done, seconds)

    def settle(self, index: int, outcome: Outcome) -> None:
        """Give item `index` its outcome. For the scheduler alone."""
        with self._changed:
            self.outcomes[index] = outcome
            self._left -= 1
            if not self.done:
                return
            self._changed.notify_all()
            callback = self._callback
        if callback is not None:
            callback()


@dataclass
class _Entry:
    """The waiting items of one ticket in one bucket."""

    ticket: Ticket
    indices: collections.deque[int]
    since: float


@dataclass
class _Queue:
    """What waits for the graphs of one bucket (smallest batch first)."""

    graphs: Sequence[PackagedVariant]
    entries: collections.deque[_Entry] = field(default_factory=collections.deque)
    waiting: int = 0

    @property
    def since(self) -> float:
        return self.entries[0].since

    @property
    def fullness(self) -> float:
        return min(1.0, self.waiting / self.graphs[-1].batch_size)

    def add(self, ticket: Ticket, indices: Sequence[int], now: float) -> None:
        self.entries.append(_Entry(ticket, collections.deque(indices), now))
        self.waiting += len(indices)

    def take(self, count: int, now: float) -> list[tuple[Ticket, int]]:
        """At most `count` items: one of each request in turn."""
        taken: list[tuple[Ticket, int]] = []
        while self.entries and len(taken) < count:
            entry = self.entries.popleft()
            taken.append((entry.ticket, entry.indices.popleft()))
            if entry.indices:
                entry.since = now
                self.entries.append(entry)
        self.waiting -= len(taken)
        return taken

    def remove(self, unwanted: Callable[[Ticket], bool]) -> list[tuple[Ticket, int]]:
        """Take out every item of the tickets that are `unwanted`."""
        out = [entry for entry in self.entries if unwanted(entry.ticket)]
        if not out:
            return []
        self.entries = collections.deque(entry for entry in self.entries if not unwanted(entry.ticket))
        removed = [(entry.ticket, index) for entry in out for index in entry.indices]
        self.waiting -= len(removed)
        return removed


@dataclass(frozen=True)
class _Pick:
    graph: PackagedVariant
    taken: list[tuple[Ticket, int]]

    @property
    def items(self) -> list[Item]:
        return [ticket.items[index] for ticket, index in self.taken]


@dataclass(frozen=True)
class _Ran:
    """A batch that has been on the device. result: the graph's outputs, or after a failure each item's outcome."""

    pick: _Pick
    core: int
    started: float
    ended: float
    result: list[Array] | list[Outcome]
    failed: bool


class QueueScheduler:
    """See the top of this file. `close` ends its threads, one for each core."""

    def __init__(
        self,
        graphs: Sequence[PackagedVariant],
        run: RunOn,
        cores: int = 1,
        *,
        max_batch_delay: float = 0.005,
        max_waiting: int = 64,
        observe: Callable[[Batch], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Seconds, and requests. `run` raises EndpointError for a batch that fails; `observe` must not raise."""
        self._graphs = tuple(graphs)
        self._run = run
        self._delay = max_batch_delay
        self._bound = max_waiting
        self._observe = observe
        self._clock = clock
        self._queues: dict[tuple[str, ...], _Queue] = {}
        self._idle = list(range(cores))
        self._closed = False
        self._changed = threading.Condition()
        self._ran: SimpleQueue[_Ran | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"core-{n}", daemon=True) for n in range(cores)]
        self._settling = threading.Thread(target=self._settle_all, name="settle", daemon=True)
        for thread in (*self._threads, self._settling):
            thread.start()

    # The callers' side --------------------------------------------------------------------------------------------

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """One outcome for each item, in order; an EndpointError for one that failed. Raises Unavailable."""
        ticket = self.submit(items)
        ticket.wait(None)
        return ticket.outcomes

    def submit(self, items: Sequence[Item], deadline: float = math.inf) -> Ticket:
        """Take in the items of one request; `deadline` is a time of the clock.

        If a core is idle, one batch of them is run here before this returns. An item that fits no graph is settled
        with its error. Raises Unavailable when the queue is full or the scheduler closed.
        """
        groups: dict[tuple[str, ...], tuple[list[PackagedVariant], list[int]]] = {}
        problems: list[tuple[int, EndpointError]] = []
        for index, item in enumerate(items):
            try:
                graphs = fitting(item, self._graphs)
                checked(item, graphs[0])
                groups.setdefault(tuple(graph.file for graph in graphs), (graphs, []))[1].append(index)
            except EndpointError as error:
                problems.append((index, error))
        ticket = Ticket(items, self._clock(), deadline)
        if groups:
            self._enqueue(ticket, groups)
        for index, problem in problems:
            ticket.settle(index, problem)
        return ticket

    def _enqueue(self, ticket: Ticket, groups: dict[tuple[str, ...], tuple[list[PackagedVariant], list[int]]]) -> None:
        with self._changed:
            if self._closed:
                raise Unavailable(SHUTTING_DOWN, retry_after=_RETRY_SECONDS)
            waiting = {id(entry.ticket) for queue in self._queues.values() for entry in queue.entries}
            if len(waiting) >= self._bound:
                raise Unavailable(
                    f"{len(waiting)} requests are waiting for the device, which is as many as may; try again",
                    retry_after=_RETRY_SECONDS,
                )
            for key, (graphs, indices) in groups.items():
                self._queues.setdefault(key, _Queue(graphs)).add(ticket, indices, ticket.submitted)
            core, pick, expired = self._claim()
            if self._idle and self._waiting():
                self._changed.notify()
        self._settle_expired(expired)
        if pick is not None:
            self._execute(core, pick)

    def cancel(self, ticket: Ticket) -> None:
        """Settle what of the ticket still waits as given up. What is on the device already is not stopped."""
        with self._changed:
            removed = [pair for queue in self._queues.values() for pair in queue.remove(lambda one: one is ticket)]
        for one, index in removed:
            one.settle(index, Unavailable("the request was given up", retry_after=_RETRY_SECONDS))

    def waiting(self) -> dict[str, int]:
        """The items that wait, by the file of their bucket's smallest graph."""
        with self._changed:
            return {key[0]: queue.waiting for key, queue in self._queues.items()}

    def close(self, seconds: float = 5.0) -> bool:
        """Take nothing in any more, settle what waits with 503, end the threads. Returns whether all have ended."""
        with self._changed:
            self._closed = True
            removed = [pair for queue in self._queues.values() for pair in queue.remove(lambda _: True)]
            self._changed.notify_all()
        for ticket, index in removed:
            ticket.settle(index, Unavailable(SHUTTING_DOWN, retry_after=_RETRY_SECONDS))
        end = self._clock() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - self._clock()))
        self._ran.put(None)
        self._settling.join(max(0.0, end - self._clock()))
        return not any(thread.is_alive() for thread in (*self._threads, self._settling))

    # The cores' side ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """A thread's life: whenever something waits and a core is idle, run a batch on it, and then the next."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (bool(self._idle) and self._waiting() > 0))
                if self._closed:
                    return
                core, pick, expired = self._claim()
            self._settle_expired(expired)
            while pick is not None:
                ran = self._run_on(core, pick)
                with self._changed:
                    core, pick, expired = self._give_back(ran.core)
                if pick is None:
                    self._settle(ran)
                else:
                    self._ran.put(ran)
                self._settle_expired(expired)

    def _settle_all(self) -> None:
        """The life of the thread that settles batches whose core went on with the next."""
        while (ran := self._ran.get()) is not None:
            self._settle(ran)

    def _waiting(self) -> int:
        return sum(queue.waiting for queue in self._queues.values())

    def _claim(self) -> tuple[int, _Pick | None, list[tuple[Ticket, int]]]:
        """A core with its next batch, if both are there, and what has expired meanwhile. The lock is held."""
        if not self._idle:
            return -1, None, []
        now = self._clock()
        expired = [pair for queue in self._queues.values() for pair in queue.remove(lambda one: one.deadline <= now)]
        queues = [queue for queue in self._queues.values() if queue.waiting]
        if not queues:
            return -1, None, expired
        queue = min(queues, key=lambda one: one.since)
        if now - queue.since < self._delay:
            queue = max(queues, key=lambda one: (one.fullness, -one.since))
        # Several idle cores share what waits, where a smaller compiled batch makes the share worth something.
        cores = max(1, len(self._idle) - (len(queues) - 1))
        share = math.ceil(queue.waiting / cores)
        graph = next((one for one in queue.graphs if one.batch_size >= share), queue.graphs[-1])
        return self._idle.pop(0), _Pick(graph, queue.take(graph.batch_size, now)), expired

    def _settle_expired(self, expired: Sequence[tuple[Ticket, int]]) -> None:
        for ticket, index in expired:
            ticket.settle(index, Unavailable("its time was up before the device was free", retry_after=_RETRY_SECONDS))

    def _give_back(self, core: int) -> tuple[int, _Pick | None, list[tuple[Ticket, int]]]:
        """A core is free again; claim what waits for one. The lock is held."""
        self._idle.append(core)
        claimed = self._claim()
        if self._idle and self._waiting():
            self._changed.notify()
        return claimed

    def _execute(self, core: int, pick: _Pick) -> None:
        """Run the batch on the core, give the core back, settle the items."""
        ran = self._run_on(core, pick)
        with self._changed:
            self._idle.append(core)
            if self._waiting():
                self._changed.notify()
        self._settle(ran)

    def _run_on(self, core: int, pick: _Pick) -> _Ran:
        """Run the batch. When it fails, each of its items is run alone, so that only the bad one fails."""
        started = self._clock()
        result: list[Array] | list[Outcome]
        result, error = self._called(core, pick.graph, pick.items)
        if error is not None:
            result = [error] if len(pick.items) == 1 else [self._alone(core, pick.graph, item) for item in pick.items]
        return _Ran(pick, core, started, self._clock(), result, error is not None)

    def _alone(self, core: int, graph: PackagedVariant, item: Item) -> Outcome:
        outputs, error = self._called(core, graph, [item])
        return error or taken_apart(graph, [item], outputs)[0]

    def _called(
        self, core: int, graph: PackagedVariant, items: Sequence[Item]
    ) -> tuple[list[Array], EndpointError | None]:
        """The graph's outputs for the items, or what went wrong."""
        try:
            return run_batch(graph, items, lambda entry, arrays: self._run(core, entry, arrays)), None
        except EndpointError as error:
            return [], error
        except Exception as error:  # a core's thread must not end; the caller learns that it is our fault
            _log.exception("a batch of %s failed", graph.file)
            return [], Internal(f"{type(error).__name__}; the worker's log has the details")

    def _settle(self, ran: _Ran) -> None:
        """Tell of the batch, and give each item its outcome."""
        items, graph = ran.pick.items, ran.pick.graph
        outcomes = ran.result if ran.failed else taken_apart(graph, items, ran.result)
        taken, seconds = ran.pick.taken, ran.ended - ran.started
        waited, wasted = tuple(ran.started - ticket.submitted for ticket, _ in taken), padding(graph, items)
        self._observe(Batch(graph, ran.core, waited, seconds, wasted, ran.failed))
        for (ticket, index), wait, outcome in zip(taken, waited, outcomes, strict=True):
            ticket.queue_seconds = max(ticket.queue_seconds, wait)
            ticket.device_seconds = max(ticket.device_seconds, seconds)
            ticket.batch_items = max(ticket.batch_items, len(items))
            ticket.padding = max(ticket.padding, wasted)
            ticket.graphs.add(graph.file)
            ticket.cores.add(ran.core)
            ticket.settle(index, outcome)


def padding(graph: PackagedVariant, items: Sequence[Item]) -> float:
    """The share, 0 to 1, of the elements of a batch's inputs that fill up the batch and the bucket."""
    held = sum(math.prod(tensor.shape) for tensor in graph.inputs)
    sent = sum(_size(item.inputs[tensor.name]) for item in items for tensor in graph.inputs)
    return 1 - sent / held if held else 0.0


def _size(array: Any) -> int:
    return int(getattr(array, "size", 1))
