"""The results of the items of one call, which a scheduler gives back before they are there, and their timings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from inference_code.execution.batching import ItemResult


@dataclass
class DeviceUsage:
    """What a request took of the device: seconds; graphs' files and cores; of its fullest batch the items.

    padding: the largest share of a batch, 0 to 1, that was padding. The sets are replaced, never changed in place: a
    reader on another thread sees one or the other.
    """

    queue_seconds: float = 0.0
    device_seconds: float = 0.0
    graphs: frozenset[str] = frozenset()
    cores: frozenset[int] = frozenset()
    batch_items: int = 0
    padding: float = 0.0

    def add_parallel(self, other: DeviceUsage) -> None:
        """Add another item's: waits of items of one call overlap, so the longest counts."""
        self.queue_seconds = max(self.queue_seconds, other.queue_seconds)
        self.device_seconds = max(self.device_seconds, other.device_seconds)
        self._merge(other)

    def add_sequential(self, other: DeviceUsage) -> None:
        """Add another call's: the calls of a decoding loop follow each other, so their times add up."""
        self.queue_seconds += other.queue_seconds
        self.device_seconds += other.device_seconds
        self._merge(other)

    def _merge(self, other: DeviceUsage) -> None:
        self.graphs |= other.graphs
        self.cores |= other.cores
        self.batch_items = max(self.batch_items, other.batch_items)
        self.padding = max(self.padding, other.padding)


class RequestFuture:
    """The results of the items of one call, each set once, by whichever thread has it. `usage`: of those set so far."""

    def __init__(self, count: int) -> None:
        self.usage = DeviceUsage()
        self._results: list[ItemResult | None] = [None] * count
        self._missing = count
        self._callback: Callable[[], None] | None = None
        self._changed = threading.Condition()

    @property
    def done(self) -> bool:
        """Whether every item has its result."""
        return self._missing == 0

    @property
    def results(self) -> list[ItemResult]:
        """One for each item, in order. Raises RuntimeError before `done`."""
        if not self.done:
            raise RuntimeError(f"{self._missing} of {len(self._results)} items have no result yet")
        return cast("list[ItemResult]", self._results)

    def add_done_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called by the thread that sets the last result. False: all are set, it is not called."""
        with self._changed:
            if not self.done:
                self._callback = callback
            return not self.done

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until done, at most `seconds`. Returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.done, seconds)

    def set_result(self, index: int, result: ItemResult, usage: DeviceUsage | None = None) -> None:
        """Set the result of item `index`, with what it took of the device if it got there. For schedulers."""
        with self._changed:
            if usage is not None:
                self.usage.add_parallel(usage)
            self._results[index] = result
            self._missing -= 1
            if not self.done:
                return
            self._changed.notify_all()
            callback = self._callback
        if callback is not None:
            callback()
