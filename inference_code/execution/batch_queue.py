"""Which items form which batch, and when: decisions alone, without threads, clock or I/O.

A request whose core is idle forms a batch at once, alone. While every core is busy, items wait in the queue of their
bucket; a core that becomes free takes as many as the compiled batch holds. Nothing ever waits for a batch to fill.

Which bucket: the one whose next batch is fullest, unless one has waited longer than max_batch_delay; then the one that
has waited longest. Which items: one of each waiting request in turn, so that a request of many items does not hold up
the requests of one; a request's place in the turn is as old as its last turn, so that it does not hold up the other
buckets either.

Its driver (scheduler.py, a test, a simulation) passes `now`, in seconds, and calls from one thread at a time.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inference_code.artifact.manifest import PackagedVariant
from inference_code.errors import SHUTTING_DOWN, Unavailable
from inference_code.execution.batching import ItemResult
from inference_code.execution.request_future import RequestFuture
from inference_code.request import Array, Item

RETRY_SECONDS = 1


@dataclass(eq=False)
class BatchItem:
    """Item `index` of a request: `future` gets its result, and identifies which items are of one request.

    graphs: those of its bucket, smallest batch first. submitted, deadline: times, in seconds.
    waiting_since: `submitted`, or the last turn of its request in this bucket.
    """

    item: Item
    index: int
    future: RequestFuture
    graphs: Sequence[PackagedVariant]
    submitted: float
    deadline: float = math.inf
    waiting_since: float = field(init=False)

    def __post_init__(self) -> None:
        self.waiting_since = self.submitted


@dataclass(eq=False)
class Batch:
    """Items that run together: `graph` on `core`. What follows them is filled in once it has run.

    outputs: the graph's, where the batch succeeded; results: each item's, where it failed and they ran one by one.
    started, ended: times, in seconds.
    """

    graph: PackagedVariant
    core: int
    items: list[BatchItem]
    started: float = 0.0
    ended: float = 0.0
    outputs: list[Array] | None = None
    results: list[ItemResult] = field(default_factory=list)


class _Bucket:
    """What waits for the graphs of one bucket: the items of each request, requests in the order of their turns."""

    def __init__(self, graphs: Sequence[PackagedVariant]) -> None:
        self.graphs = graphs
        self.requests: dict[RequestFuture, collections.deque[BatchItem]] = {}
        self.waiting = 0

    @property
    def waiting_since(self) -> float:
        return next(iter(self.requests.values()))[0].waiting_since

    @property
    def fullness(self) -> float:
        return min(1.0, self.waiting / self.graphs[-1].batch_size)

    def add(self, item: BatchItem) -> None:
        self.requests.setdefault(item.future, collections.deque()).append(item)
        self.waiting += 1

    def take(self, count: int, now: float) -> list[BatchItem]:
        """At most `count` items: one of each request in turn."""
        taken: list[BatchItem] = []
        while self.requests and len(taken) < count:
            future = next(iter(self.requests))
            items = self.requests.pop(future)
            taken.append(items.popleft())
            if items:
                items[0].waiting_since = now
                self.requests[future] = items  # behind all others
        self.waiting -= len(taken)
        return taken

    def remove(self, unwanted: Callable[[BatchItem], bool]) -> list[BatchItem]:
        """Take out the items of every request whose next one is unwanted."""
        futures = [future for future, items in self.requests.items() if unwanted(items[0])]
        removed = [item for future in futures for item in self.requests.pop(future)]
        self.waiting -= len(removed)
        return removed


class BatchQueue:
    """The queues of all buckets and the idle cores; see the top of this file."""

    def __init__(self, cores: int = 1, *, max_batch_delay: float = 0.005, max_waiting: int = 64) -> None:
        """max_batch_delay: seconds. max_waiting: requests; the next one is refused."""
        self._delay = max_batch_delay
        self._max_waiting = max_waiting
        self._idle = list(range(cores))
        self._buckets: dict[str, _Bucket] = {}  # by the file of the smallest graph
        self._waiting = 0  # items, in all buckets
        self.closed = False

    def submit(self, items: Sequence[BatchItem]) -> None:
        """Take in the items of one request. Raises Unavailable when the queue is full or closed."""
        if self.closed:
            raise Unavailable(SHUTTING_DOWN, retry_after=RETRY_SECONDS)
        waiting = self._waiting_requests()
        if waiting >= self._max_waiting:
            raise Unavailable(f"inference queue is full ({waiting} requests); retry", retry_after=RETRY_SECONDS)
        for item in items:
            file = item.graphs[0].file
            if file not in self._buckets:
                self._buckets[file] = _Bucket(item.graphs)
            self._buckets[file].add(item)
        self._waiting += len(items)

    def expire(self, now: float) -> list[BatchItem]:
        """Take out the items whose deadline has come; before next_batch, so that none of them reaches the device."""
        return self._remove(lambda item: item.deadline <= now)

    def next_batch(self, now: float) -> Batch | None:
        """The next batch, for a core that is idle no longer. None: all cores are busy, or nothing waits.

        There is no time to wait for in between: a batch never waits for more items.
        """
        if not self.has_batch:
            return None
        buckets = [bucket for bucket in self._buckets.values() if bucket.waiting]
        bucket = min(buckets, key=lambda one: one.waiting_since)
        if now - bucket.waiting_since < self._delay:
            bucket = max(buckets, key=lambda one: (one.fullness, -one.waiting_since))
        # Several idle cores share what waits, where a smaller compiled batch makes the share worth something.
        cores = max(1, len(self._idle) - (len(buckets) - 1))
        share = math.ceil(bucket.waiting / cores)
        graph = next((one for one in bucket.graphs if one.batch_size >= share), bucket.graphs[-1])
        taken = bucket.take(graph.batch_size, now)
        self._waiting -= len(taken)
        return Batch(graph, self._idle.pop(0), taken)

    def release(self, core: int) -> None:
        """The batch of `core` has run."""
        self._idle.append(core)

    def cancel(self, future: RequestFuture) -> list[BatchItem]:
        """Take out what of a request still waits."""
        return self._remove(lambda item: item.future is future)

    def close(self) -> list[BatchItem]:
        """Refuse whatever comes, and take out what waits."""
        self.closed = True
        return self._remove(lambda _: True)

    @property
    def has_batch(self) -> bool:
        """Whether a core is idle and an item waits."""
        return bool(self._idle) and self._waiting > 0

    def waiting(self) -> dict[str, int]:
        """The items that wait, by the file of their bucket's smallest graph."""
        return {file: bucket.waiting for file, bucket in self._buckets.items()}

    def _remove(self, unwanted: Callable[[BatchItem], bool]) -> list[BatchItem]:
        if not self._waiting:
            return []
        removed = [item for bucket in self._buckets.values() for item in bucket.remove(unwanted)]
        self._waiting -= len(removed)
        return removed

    def _waiting_requests(self) -> int:
        if not self._waiting:
            return 0
        return len(set[RequestFuture]().union(*(bucket.requests for bucket in self._buckets.values())))
