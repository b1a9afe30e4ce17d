"""The pool's order, and its end."""

from __future__ import annotations

import threading
import time

import pytest

from inference_code.server.thread_pool import Pool

LONG = 20.0


def test_what_ends_a_request_goes_before_what_begins_one() -> None:
    pool, free, ended = Pool(1, "test"), threading.Event(), threading.Event()
    ran: list[str] = []
    pool.submit(lambda: free.wait(LONG) and None)
    for name in ("first", "second"):
        pool.submit(lambda name=name: ran.append(name))  # type: ignore[misc]
    for name in ("answer", "next answer"):
        pool.submit(lambda name=name: ran.append(name), ending=True)  # type: ignore[misc]
    pool.submit(ended.set)
    free.set()
    assert ended.wait(LONG)
    assert ran == ["answer", "next answer", "first", "second"]
    pool.close()
    assert pool.join(time.monotonic() + LONG)


def test_its_threads_work_at_the_same_time() -> None:
    pool, together = Pool(3, "test"), threading.Barrier(4)
    for _ in range(3):
        pool.submit(lambda: together.wait(LONG) and None)
    together.wait(LONG)
    pool.close()
    assert pool.join(time.monotonic() + LONG)


def test_closing_lets_what_is_under_way_end_and_begins_nothing() -> None:
    pool, begun, free = Pool(1, "test"), threading.Event(), threading.Event()
    ran: list[str] = []

    def work() -> None:
        begun.set()
        free.wait(LONG)
        ran.append("under way")

    pool.submit(work)
    pool.submit(lambda: ran.append("waiting"))
    assert begun.wait(LONG)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(lambda: None)
    assert not pool.join(time.monotonic() + 0.05)
    free.set()
    assert pool.join(time.monotonic() + LONG)
    assert ran == ["under way"]
