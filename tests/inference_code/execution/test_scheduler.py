"""The scheduler with a device whose calls end when the test says so."""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_code.artifact.manifest import PackagedVariant
from inference_code.errors import BadRequest, EndpointError, Internal, Unavailable
from inference_code.execution.batching import BatchRecord
from inference_code.execution.request_future import RequestFuture
from inference_code.execution.scheduler import QueueScheduler
from inference_code.request import Item
from tests.inference_code.helpers import LONG, Gate, graph, item


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., QueueScheduler]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[QueueScheduler, Any]] = []

    def build(graphs: list[PackagedVariant], device: Any, cores: int = 1, **options: Any) -> QueueScheduler:
        made.append((QueueScheduler(graphs, device, cores, **options), device))
        return made[-1][0]

    yield build
    for scheduler, device in made:
        if isinstance(device, Gate):
            device.go(1000)
        assert scheduler.close(LONG)


def occupy(scheduler: QueueScheduler, device: Gate, pool: ThreadPoolExecutor, cores: int = 1) -> list[Any]:
    """Keep every core busy with a request of its own, whose value is -1."""
    futures = []
    for _ in range(cores):
        futures.append(pool.submit(scheduler.run, [item(-1)]))
        assert device.next()[2][0] == -1
    return futures


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as executor:
        yield executor


def first(outcome: Any) -> float:
    assert not isinstance(outcome, EndpointError), outcome
    return float(outcome["y"][0])


def test_an_item_whose_cut_does_not_fit_the_outputs_fails_alone_and_ends_no_thread(
    make: Make, pool: ThreadPoolExecutor
) -> None:
    """Two batches: the first is settled while the core runs the next, the second by the core's own thread."""
    device = Gate(held=True)
    scheduler = make([graph(1), graph(2)], device)
    wrong = dataclasses.replace(item(5), cut={"y": {0: "two"}})
    for _ in range(2):
        busy = occupy(scheduler, device, pool)
        futures = [scheduler.submit([one]) for one in (item(1), wrong, item(2), wrong)]
        device.go(3)
        for future in futures:
            assert future.wait(LONG)
        assert [first(futures[n].results[0]) for n in (0, 2)] == [2, 4]
        assert [str(futures[n].results[0]) for n in (1, 3)] == ["TypeError; the worker's log has the details"] * 2
        assert first(busy[0].result(LONG)[0]) == -2
        assert [device.next()[2] for _ in range(2)] == [[1, 5], [2, 5]]


def test_a_lone_request_goes_out_at_once_on_the_thread_that_brings_it(make: Make) -> None:
    threads = []

    def device(core: int, entry: PackagedVariant, arrays: list[Any]) -> list[Any]:
        threads.append((threading.current_thread(), core, entry.batch_size))
        return [arrays[0] * 2]

    future = make([graph(1), graph(8)], device, max_batch_delay=3600).submit([item(3)])
    assert future.done
    assert first(future.results[0]) == 6
    assert threads == [(threading.current_thread(), 0, 1)]


def test_batches_form_while_the_core_is_busy_up_to_the_compiled_batch(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    scheduler = make([graph(1), graph(4)], device)
    occupy(scheduler, device, pool)
    futures = [scheduler.submit([item(value)]) for value in range(1, 7)]
    assert not any(future.done for future in futures)
    device.go()
    assert device.next() == (0, "main-3-4.pt", [1, 2, 3, 4])
    device.go()
    assert device.next() == (0, "main-3-4.pt", [5, 6, 6, 6])
    device.go()
    assert all(future.wait(LONG) for future in futures)
    assert [first(future.results[0]) for future in futures] == [2, 4, 6, 8, 10, 12]


def test_every_core_works_at_the_same_time(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    scheduler = make([graph(1)], device, 4)
    futures = [pool.submit(scheduler.run, [item(value)]) for value in range(4)]
    begun = [device.next() for _ in range(4)]
    assert sorted(core for core, _, _ in begun) == [0, 1, 2, 3]
    device.go(4)
    assert [first(future.result(LONG)[0]) for future in futures] == [0, 2, 4, 6]


def test_the_items_of_one_request_spread_over_idle_cores(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    scheduler = make([graph(1), graph(2), graph(8)], device, 2)
    future = pool.submit(scheduler.run, [item(value) for value in range(4)])
    assert sorted(values for _, _, values in (device.next(), device.next())) == [[0, 1], [2, 3]]
    device.go(2)
    assert [first(outcome) for outcome in future.result(LONG)] == [0, 2, 4, 6]


def test_one_compiled_batch_is_not_split_for_nothing(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate()
    scheduler = make([graph(4)], device, 2)
    scheduler.run([item(value) for value in range(4)])
    assert device.next()[2] == [0, 1, 2, 3]
    assert device.begun.empty()


def test_a_request_of_many_items_does_not_hold_up_the_requests_of_one(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    scheduler = make([graph(2)], device)
    occupy(scheduler, device, pool)
    many = scheduler.submit([item(value) for value in range(10, 18) if value != 13])
    one = scheduler.submit([item(1)])
    device.go()
    assert device.next()[2] == [10, 1]
    device.go(2)
    assert one.wait(LONG)
    assert not many.done
    device.go(10)
    assert many.wait(LONG)
    assert [first(outcome) for outcome in many.results] == [20, 22, 24, 28, 30, 32, 34]


def test_buckets_take_turns_however_many_wait_for_one(make: Make, pool: ThreadPoolExecutor) -> None:
    device, clock = Gate(held=True), Clock()
    scheduler = make([graph(2), graph(2, length=5)], device, max_batch_delay=0.005, clock=clock)
    occupy(scheduler, device, pool)
    many = scheduler.submit([item(value) for value in range(20, 30)])
    clock.now += 0.001
    other = scheduler.submit([item(5, length=5)])
    clock.now += 1
    device.go()
    assert device.next()[2] == [20, 21]
    clock.now += 1
    device.go()
    assert device.next()[1] == "main-5-2.pt"
    device.go()
    assert other.wait(LONG)
    device.go(10)
    assert many.wait(LONG)


@pytest.mark.parametrize(("passed", "expected"), [(0.001, "main-5-2.pt"), (0.006, "main-3-2.pt")])
def test_the_fullest_batch_goes_first_until_one_has_waited_too_long(
    make: Make, pool: ThreadPoolExecutor, passed: float, expected: str
) -> None:
    device, clock = Gate(held=True), Clock()
    scheduler = make([graph(2), graph(2, length=5)], device, max_batch_delay=0.005, clock=clock)
    occupy(scheduler, device, pool)
    scheduler.submit([item(1)])
    clock.now += 0.0001
    scheduler.submit([item(2, length=5), item(3, length=5)])
    clock.now += passed
    device.go()
    assert device.next()[1] == expected


def test_a_full_queue_refuses_with_retry_after(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    scheduler = make([graph(1)], device, max_waiting=2)
    occupy(scheduler, device, pool)
    waiting = [scheduler.submit([item(1)] * 3), scheduler.submit([item(2)])]
    with pytest.raises(Unavailable) as caught:
        scheduler.submit([item(3)])
    assert caught.value.retry_after == 1
    assert str(caught.value) == "inference queue is full (2 requests); retry"
    device.go(5)
    assert all(future.wait(LONG) for future in waiting)
    device.held = False
    assert first(scheduler.run([item(3)])[0]) == 6


def test_what_is_cancelled_never_reaches_the_device(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    scheduler = make([graph(4)], device)
    occupy(scheduler, device, pool)
    gone, stays = scheduler.submit([item(1), item(2)]), scheduler.submit([item(3)])
    scheduler.cancel(gone)
    assert gone.done
    assert all(isinstance(outcome, Unavailable) for outcome in gone.results)
    device.go()
    assert device.next()[2] == [3, 3, 3, 3]
    device.go()
    assert stays.wait(LONG)
    assert scheduler.waiting() == {"main-3-4.pt": 0}


def test_what_is_late_never_reaches_the_device(make: Make, pool: ThreadPoolExecutor) -> None:
    device, clock = Gate(held=True), Clock()
    scheduler = make([graph(4)], device, clock=clock)
    occupy(scheduler, device, pool)
    late, stays = scheduler.submit([item(1)], clock.now + 5), scheduler.submit([item(2)], clock.now + 50)
    clock.now += 5
    device.go()
    assert device.next()[2] == [2, 2, 2, 2]
    assert late.wait(LONG)
    assert str(late.results[0]) == "deadline exceeded while queued"
    device.go()
    assert stays.wait(LONG)


def test_a_request_that_is_late_on_arrival_is_not_run(make: Make) -> None:
    device, clock = Gate(), Clock()
    scheduler = make([graph(1)], device, clock=clock)
    future = scheduler.submit([item(1)], clock.now)
    assert isinstance(future.results[0], Unavailable)
    assert device.begun.empty()


def test_one_bad_item_fails_alone_in_a_batch_with_other_requests(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    batches: list[BatchRecord] = []
    scheduler = make([graph(1), graph(4)], device, observe=batches.append)
    occupy(scheduler, device, pool)
    futures = [scheduler.submit([item(value)]) for value in (1, 13, 3)]
    bad = scheduler.submit([item(1, length=7), Item({"x": np.ones(3, complex)}), item(4)])
    device.go(10)
    assert all(future.wait(LONG) for future in (*futures, bad))
    assert str(futures[1].results[0]) == "the device stumbled"
    assert (first(futures[0].results[0]), first(futures[2].results[0]), first(bad.results[2])) == (2, 6, 8)
    assert [type(outcome) for outcome in bad.results[:2]] == [BadRequest, BadRequest]
    assert [batch.failed for batch in batches] == [False, True]


def test_a_device_that_raises_anything_does_not_end_the_core(make: Make) -> None:
    def device(core: int, entry: PackagedVariant, arrays: list[Any]) -> list[Any]:
        if arrays[0][0, 0] == 1:
            raise KeyError("secret")
        return [arrays[0] * 2]

    scheduler = make([graph(1)], device)
    (outcome,) = scheduler.run([item(1)])
    assert isinstance(outcome, Internal)
    assert "secret" not in str(outcome)
    assert first(scheduler.run([item(2)])[0]) == 4


def test_closing_answers_what_waits_and_refuses_what_comes(make: Make, pool: ThreadPoolExecutor) -> None:
    device = Gate(held=True)
    scheduler = make([graph(1)], device)
    (busy,) = occupy(scheduler, device, pool)
    waiting = scheduler.submit([item(1)])
    assert scheduler.close(LONG)
    assert isinstance(waiting.results[0], Unavailable)
    with pytest.raises(Unavailable, match="shutting down"):
        scheduler.submit([item(2)])
    device.go()
    assert first(busy.result(LONG)[0]) == -2


def test_what_is_observed_of_a_batch(make: Make, pool: ThreadPoolExecutor) -> None:
    device, clock, batches = Gate(held=True), Clock(), list[BatchRecord]()
    scheduler = make([graph(1), graph(4)], device, clock=clock, observe=batches.append)
    (busy,) = occupy(scheduler, device, pool)
    futures = [scheduler.submit([item(1)]), scheduler.submit([item(2)])]
    clock.now += 3
    device.go()
    assert busy.result(LONG)
    device.next()
    clock.now += 2
    device.go()
    assert all(future.wait(LONG) for future in futures)
    second = batches[1]
    assert (second.graph.batch_size, second.core, second.waited, second.seconds, second.padding) == (
        4,
        0,
        (3, 3),
        2,
        0.5,
    )
    assert (futures[0].usage.queue_seconds, futures[0].usage.device_seconds, futures[0].usage.graphs) == (
        3,
        2,
        {"main-3-4.pt"},
    )


def test_the_callback_is_called_once_by_the_thread_that_sets_the_last_result() -> None:
    calls: list[str] = []
    future = RequestFuture(2)
    assert future.add_done_callback(lambda: calls.append("x"))
    future.set_result(1, ["b"])
    assert calls == []
    with pytest.raises(RuntimeError, match="1 of 2 items"):
        _ = future.results
    future.set_result(0, ["a"])
    assert (calls, future.results) == (["x"], [["a"], ["b"]])
    assert not future.add_done_callback(lambda: calls.append("y"))
    assert calls == ["x"]


def test_no_items_are_done_at_once(make: Make) -> None:
    assert make([graph(1)], Gate()).run([]) == []


def test_a_core_does_not_wait_for_the_last_batch_to_be_settled(make: Make, pool: ThreadPoolExecutor) -> None:
    device, settling = Gate(held=True), threading.Event()

    def observe(batch: BatchRecord) -> None:
        assert batch.waited
        settling.wait(LONG)

    scheduler = make([graph(1)], device, observe=observe)
    futures = [pool.submit(scheduler.submit, [item(1)])]
    device.next()
    futures += [pool.submit(scheduler.submit, [item(value)]) for value in (2, 3)]
    waited = time.monotonic() + LONG
    while sum(scheduler.waiting().values()) < 2 and time.monotonic() < waited:
        time.sleep(0.001)
    device.go(2)
    assert {device.next()[2][0], device.next()[2][0]} == {2, 3}  # neither batch before has been settled
    device.go()
    settling.set()
    assert sorted(first(one.result(LONG).results[0]) for one in futures if one.result(LONG).wait(LONG)) == [2, 4, 6]


@settings(max_examples=25, deadline=None)
@given(
    before=st.lists(st.tuples(st.sampled_from([3, 5, 7]), st.sampled_from([1, 1, 2, 6, 16])), max_size=8),
    flood=st.sampled_from([3, 5, 7]),
    mine=st.sampled_from([3, 5, 7]),
)
def test_nobody_waits_longer_than_those_who_were_there_before(
    before: list[tuple[int, int]], flood: int, mine: int
) -> None:
    """The bound on fairness: once max_batch_delay has passed, at most one batch a request that came earlier.

    However many items those have, and although others keep coming to some bucket all the time.
    """
    device, clock = Gate(held=True), Clock()
    graphs = [graph(2, length=length) for length in (3, 5, 7)]
    scheduler = QueueScheduler(graphs, device, max_batch_delay=0.005, max_waiting=1000, clock=clock)
    with ThreadPoolExecutor(1) as executor:
        occupy(scheduler, device, executor)
        others = []
        for length, count in before:
            clock.now += 0.001
            others.append(scheduler.submit([item(2, length)] * count))
        clock.now += 0.001
        future = scheduler.submit([item(1, mine)])
        clock.now += 0.006
        batch: list[float] = []
        batches = 0
        while 1 not in batch:
            others.append(scheduler.submit([item(2, flood)] * 4))
            clock.now += 0.001
            device.go()
            batch = device.next()[2]
            batches += 1
            assert batches <= len(before) + 1, "it starves"
        device.held = False
        device.go(1000)
        assert all(one.wait(LONG) for one in (future, *others))
        assert scheduler.close(LONG)
    assert first(future.results[0]) == 2


def test_thousands_of_requests_from_many_threads_are_each_answered_with_their_own(make: Make) -> None:
    """Counted: nothing is lost, doubled or swapped, with cancelled requests and failures among them."""
    calls, lock = itertools.count(), threading.Lock()
    running: set[int] = set()

    def device(core: int, entry: PackagedVariant, arrays: list[Any]) -> list[Any]:
        next(calls)
        with lock:
            assert core not in running, "two batches on one core"
            running.add(core)
        try:
            if (arrays[0] == 13).any():
                raise Internal("the device stumbled")
            return [arrays[0] * 2]
        finally:
            with lock:
                running.remove(core)

    graphs = [graph(1), graph(4), graph(8), graph(4, length=5)]
    scheduler = make(graphs, device, 3, max_waiting=1000)

    def client(number: int) -> int:
        chance = random.Random(number)
        for _ in range(150):
            values = [chance.randrange(40) for _ in range(chance.choice((1, 1, 1, 5)))]
            future = scheduler.submit([item(value, chance.choice((3, 5))) for value in values])
            if chance.random() < 0.05:
                scheduler.cancel(future)
            assert future.wait(LONG)
            for value, outcome in zip(values, future.results, strict=True):
                if isinstance(outcome, Unavailable):
                    continue
                if value == 13:
                    assert isinstance(outcome, Internal)
                else:
                    assert first(outcome) == 2 * value
        return 150

    with ThreadPoolExecutor(16) as executor:
        assert sum(executor.map(client, range(16))) == 2400
    assert sum(scheduler.waiting().values()) == 0
