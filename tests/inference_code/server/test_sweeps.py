"""What traffic.py does about connections that stall, by a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from inference_code.errors import EndpointError, Unavailable
from inference_code.server.traffic import ANSWER, BODY, HEAD, IDLE, Sweep, Traffic
from inference_code.settings import Settings

SETTINGS = Settings(head_timeout_s=10, least_rate=100, rate_window_s=10, transfer_bytes=1000)


class House:
    """Traffic, its clock, and connections."""

    def __init__(self) -> None:
        self.now = 0.0
        self.traffic = Traffic(SETTINGS, lambda: self.now)

    def connection(self, phase: str, which: int = 0) -> Connection:
        one = Connection((phase, which))
        self.traffic.add(one)
        return one

    def pass_seconds(self, seconds: int, *moving: Connection, rate: int = 0) -> None:
        for _ in range(seconds):
            self.now += 1
            for one in moving:
                one.bytes += rate
            self.traffic.sweep()


class Connection:
    """A protocol, as far as traffic.py looks at it."""

    sweep: Sweep

    def __init__(self, phase: tuple[str, object]) -> None:
        self.transport = self
        self.current, self.bytes, self.body_bytes, self.answer_bytes = phase, 0, 0, 0
        self.refused: EndpointError | None = None
        self.aborted = False

    def phase(self) -> tuple[str, object]:
        return self.current

    def moved(self) -> int:
        return self.bytes

    def refuse(self, error: Any) -> None:
        self.refused = error

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("phase", [HEAD, BODY, ANSWER])
def test_what_stalls_is_ended_and_what_idles_is_not(phase: str) -> None:
    house = House()
    stalled, idle = house.connection(phase), house.connection(IDLE)
    house.pass_seconds(10)
    assert (stalled.refused, stalled.aborted) == (None, False)
    house.pass_seconds(1)
    assert (stalled.refused is not None, stalled.aborted) == (phase != ANSWER, phase == ANSWER)
    if stalled.refused is not None:
        assert stalled.refused.status == 408
    house.pass_seconds(100)
    assert (idle.refused, idle.aborted) == (None, False)


@pytest.mark.parametrize(("rate", "ends"), [(101, False), (99, True)])
def test_a_least_rate_is_measured_over_the_window(rate: int, ends: bool) -> None:
    house = House()
    body, answer = house.connection(BODY), house.connection(ANSWER)
    house.pass_seconds(40, body, answer, rate=rate)
    assert (body.refused is not None, answer.aborted) == (ends, ends)


def test_a_fast_beginning_excuses_no_standstill() -> None:
    house = House()
    body = house.connection(BODY)
    house.pass_seconds(5, body, rate=1_000_000)
    house.pass_seconds(10)
    assert body.refused is not None


def test_another_request_or_phase_begins_anew() -> None:
    house = House()
    one = house.connection(HEAD)
    for number in range(20):
        one.current = ((HEAD, BODY, ANSWER)[number % 3], number)
        house.pass_seconds(9)
    assert (one.refused, one.aborted) == (None, False)


def test_a_full_house_closes_the_body_that_has_stalled_longest() -> None:
    house = House()
    first, second = house.connection(BODY), house.connection(BODY)
    house.pass_seconds(1, first, second, rate=200)
    house.pass_seconds(1, second, rate=200)
    for one in (first, second):
        house.traffic.body_received(one, 450)
    house.pass_seconds(2)
    third = house.connection(BODY)
    house.traffic.body_received(third, 400)
    assert (first.aborted, second.aborted, third.refused) == (True, False, None)
    house.traffic.body_received(third, -400)
    house.traffic.body_received(house.connection(BODY), 400)
    assert not second.aborted


def test_a_body_is_refused_where_all_others_move_and_a_lone_one_never() -> None:
    house = House()
    moving, new = house.connection(BODY), house.connection(BODY)
    house.traffic.body_received(moving, 5000)
    assert moving.refused is None
    house.traffic.body_received(new, 1)
    assert isinstance(new.refused, Unavailable)
    house.traffic.remove(moving)
    house.traffic.remove(new)
    house.traffic.body_received(house.connection(BODY), 1000)


def test_answers_are_bounded_in_the_same_way() -> None:
    house = House()
    unread = house.connection(ANSWER)
    house.traffic.answer_begins(unread, 5000)
    with pytest.raises(Unavailable, match="ENDPOINT_TRANSFER_BYTES"):
        house.traffic.answer_begins(house.connection(IDLE), 600)
    house.pass_seconds(3)
    house.traffic.answer_begins(house.connection(IDLE), 600)
    assert unread.aborted
    house.traffic.answer_ends(unread)
    with pytest.raises(Unavailable):
        house.traffic.answer_begins(house.connection(IDLE), 600)
