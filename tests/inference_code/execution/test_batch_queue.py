"""The decisions alone: `now` is a number of the test's, and nothing runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_code.artifact.manifest import PackagedVariant
from inference_code.errors import Unavailable
from inference_code.execution.batch_queue import Batch, BatchItem, BatchQueue
from inference_code.execution.request_future import RequestFuture
from tests.inference_code.helpers import graph, item

SHORT, LONG = (graph(1), graph(2), graph(8)), (graph(2, length=5),)


def request(
    values: Sequence[float], now: float = 0.0, graphs: Sequence[PackagedVariant] = SHORT, deadline: float = math.inf
) -> list[BatchItem]:
    """The items of one request."""
    future = RequestFuture(len(values))
    length = graphs[0].inputs[0].shape[1]
    return [BatchItem(item(one, length), n, future, graphs, now, deadline) for n, one in enumerate(values)]


def values(batch: Batch | None) -> list[float]:
    assert batch is not None
    return [float(one.item.inputs["x"][0]) for one in batch.items]


def test_an_idle_core_takes_a_lone_request_at_once() -> None:
    queue = BatchQueue(1)
    assert queue.next_batch(0) is None
    queue.submit(request([7]))
    batch = queue.next_batch(0)
    assert values(batch) == [7]
    assert batch is not None
    assert (batch.core, batch.graph.batch_size) == (0, 1)
    assert not queue.has_batch


def test_while_every_core_is_busy_items_wait_and_then_fill_one_batch() -> None:
    queue = BatchQueue(1)
    queue.submit(request([0]))
    busy = queue.next_batch(0)
    for value in range(1, 11):
        queue.submit(request([value]))
    assert queue.next_batch(1) is None
    assert queue.waiting() == {"main-3-1.pt": 10}
    assert busy is not None
    queue.release(busy.core)
    assert queue.has_batch
    assert values(queue.next_batch(1)) == [1, 2, 3, 4, 5, 6, 7, 8]
    queue.release(0)
    batch = queue.next_batch(2)
    assert values(batch) == [9, 10]
    assert batch is not None
    assert batch.graph.batch_size == 2


def test_requests_take_turns_in_one_bucket() -> None:
    queue = BatchQueue(1)
    queue.submit(request([10, 11, 12], graphs=SHORT[:2]))
    queue.submit(request([20], graphs=SHORT[:2]))
    batches = []
    while queue.has_batch:
        batches.append(values(queue.next_batch(0)))
        queue.release(0)
    assert batches == [[10, 20], [11, 12]]


def test_the_fullest_bucket_goes_first_until_another_has_waited_for_the_delay() -> None:
    for now, expected in ((0.004, [2, 3]), (0.005, [1])):
        queue = BatchQueue(1, max_batch_delay=0.005)
        queue.submit(request([1], 0.0))
        queue.submit(request([2, 3], 0.001, LONG))
        assert values(queue.next_batch(now)) == expected


def test_what_has_expired_is_taken_out_and_nothing_else() -> None:
    queue = BatchQueue(1)
    late, stays = request([1, 2], deadline=5), request([3], deadline=6)
    queue.submit(late)
    queue.submit(stays)
    assert queue.expire(4.999) == []
    assert queue.expire(5) == late
    assert values(queue.next_batch(5)) == [3]


def test_what_is_cancelled_is_taken_out_once() -> None:
    queue = BatchQueue(1)
    gone = request([1, 2])
    queue.submit(gone)
    assert queue.cancel(gone[0].future) == gone
    assert queue.cancel(gone[0].future) == []
    assert queue.waiting() == {"main-3-1.pt": 0}


def test_a_full_queue_counts_requests_and_not_their_items() -> None:
    queue = BatchQueue(1, max_waiting=2)
    queue.submit(request([1] * 20))
    queue.submit(request([2], graphs=LONG))
    with pytest.raises(Unavailable, match=r"inference queue is full \(2 requests\); retry") as caught:
        queue.submit(request([3]))
    assert caught.value.retry_after == 1


def test_a_closed_queue_gives_back_what_waits_and_takes_nothing() -> None:
    queue = BatchQueue(1)
    waiting = request([1, 2])
    queue.submit(waiting)
    assert queue.close() == waiting
    with pytest.raises(Unavailable, match="shutting down"):
        queue.submit(request([3]))


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12),
    cores=st.integers(1, 4),
    busy=st.integers(0, 4),
)
def test_every_item_is_in_exactly_one_batch_and_no_core_in_two(
    sizes: list[tuple[int, bool]], cores: int, busy: int
) -> None:
    queue = BatchQueue(cores, max_waiting=100)
    sent = []
    for number, (count, short) in enumerate(sizes):
        items = request([number] * count, number * 0.001, SHORT if short else LONG)
        sent += items
        queue.submit(items)
    running: list[Batch] = []
    taken: list[BatchItem] = []
    now = 1.0
    while queue.has_batch or running:
        while (batch := queue.next_batch(now)) is not None:
            assert batch.core not in {one.core for one in running}
            assert 1 <= len(batch.items) <= batch.graph.batch_size
            assert all(one.graphs[-1].inputs[0].shape[1] == batch.graph.inputs[0].shape[1] for one in batch.items)
            running.append(batch)
            taken += batch.items
        assert len(running) <= cores
        now += 0.01
        queue.release(running.pop(busy % len(running)).core)
    assert sorted(map(id, taken)) == sorted(map(id, sent))
    assert sum(queue.waiting().values()) == 0


def test_idle_cores_share_a_request_where_a_smaller_batch_was_compiled() -> None:
    queue = BatchQueue(2)
    queue.submit(request([1, 2, 3, 4]))
    assert [values(queue.next_batch(0)), values(queue.next_batch(0))] == [[1, 2], [3, 4]]


def test_a_bucket_of_one_batch_size_is_not_split() -> None:
    whole = (dataclasses.replace(graph(4), file="whole.pt"),)
    queue = BatchQueue(2)
    queue.submit(request([1, 2, 3, 4], graphs=whole))
    assert values(queue.next_batch(0)) == [1, 2, 3, 4]
    assert queue.next_batch(0) is None
